"""One run from the command line: what is to do, do it, write results, tell."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.cli import SOME_FAILED
from faceqan_toolkit.cli.options import assumed_text, make_settings
from faceqan_toolkit.cli.progress import Progress
from faceqan_toolkit.cli.show import print_summary
from faceqan_toolkit.detection.landmarks_file import CommonMistake, LandmarksFile, most_common
from faceqan_toolkit.errors import SettingsError, Unalignable
from faceqan_toolkit.geometry import MISTAKES, Mistake
from faceqan_toolkit.models.zoo import find_model, head_of
from faceqan_toolkit.paths import printable
from faceqan_toolkit.photos.archives import ArchiveOptions
from faceqan_toolkit.photos.find import stream_photos
from faceqan_toolkit.photos.locate import is_elsewhere
from faceqan_toolkit.photos.video import Every
from faceqan_toolkit.quality.registry import make_estimator
from faceqan_toolkit.results.calibration import Calibration, read_calibration
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import Run, read_run
from faceqan_toolkit.runs.shards import Shard
from faceqan_toolkit.runs.todo import Todo
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource
from faceqan_toolkit.wording import counted

NO_PHOTOS = (
    "Note: no photos were found. In folders, files are taken by their extensions (.jpg, .png, "
    ".heic and so on, docs/photos.md); raw files of cameras (.cr2, .nef, .dng) are not read."
)


def run_job(
    task: str,
    inputs: Sequence[str],
    *,
    output: Path,
    formats: Sequence[str],
    retry_failed: bool,
    shard: Shard | None,
    every: Every,
    image_column: str,
    report: bool = False,
    redact: bool = False,
    calibration: Path | None = None,
    **chosen: Any,
) -> None:
    """Process photos into a run folder and exit with 0, or 3 if some have no result.

    Args:
        task: one of `settings.TASKS`.
        inputs: see `photos.find.find_photos`.
        every, image_column: see `ArchiveOptions`.
        output, formats, retry_failed, shard, report, redact, calibration: see `make_run`.
        chosen: the settings, see `options.make_settings`.

    Raises:
        FaceQANError: whatever stops the run; what was recorded until then is kept.
    """
    counts, files = make_run(
        make_settings(task, **chosen),
        stream_photos(inputs, options=ArchiveOptions(every, image_column)),
        output,
        formats,
        retry_failed=retry_failed,
        shard=shard,
        report=report,
        redact=redact,
        calibration=calibration,
    )
    finish(output, counts, files)


def make_run(
    settings: Settings,
    photos: Iterable[PhotoSource],
    output: Path,
    formats: Sequence[str],
    *,
    retry_failed: bool,
    shard: Shard | None = None,
    report: bool = False,
    redact: bool = False,
    calibration: Path | None = None,
) -> tuple[Mapping[str, int], list[Path]]:
    """Process photos into a run folder; return counts of rows by status, and the results' files.

    Args:
        settings: of the run.
        photos: taken in as they are found; neither they nor the run need to fit into memory.
        output: the run folder.
        formats: of the results.
        retry_failed: try every photo without a result again.
        shard: only the photos that belong to it.
        report: write the page to look at.
        redact: without pictures.
        calibration: a file of `calibrate`.

    Raises:
        FaceQANError: whatever stops the run; what was recorded until then is kept.
    """
    started, clock = datetime.now(timezone.utc), time.monotonic()
    check_redact(report=report, redact=redact)
    _check_device(settings)
    weights, model = _model(settings)
    calibrated = _calibration(calibration, settings, weights)
    found = _Found(photos, shard)
    with Todo(output, found) as todo, Run(output, settings, weights, model, shard=shard) as run:
        for line in run.repaired:
            click.echo(f"Warning: {line}", err=True)
        changed = calibrated is not None and run.use_calibration(
            calibrated.for_run(), calibrated.scale
        )
        landmarks = LandmarksFile(settings.landmarks, settings) if settings.landmarks else None
        identify = landmarks.identify if landmarks else lambda _: ""
        todo.compare(run, identify, retry_failed=retry_failed)
        number = len(todo)
        click.echo(_plan(todo.asked, todo.asked - number), err=True)
        if not todo.asked and shard is None:
            click.echo(NO_PHOTOS, err=True)
        told = landmarks and landmarks.common_mistake()
        if landmarks and told:
            click.echo(f"Warning: {told.describe(landmarks.path)}", err=True)
        done = _process(run, settings, todo, number)
        todo.close()
        run.flush()
        ranking = Ranking(run.info)
        run.compact()
        counts, files = write_results(ranking, formats)
        if done:
            call = {
                "started": started.isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - clock, 3),
                "photos": number,
                "cores": os.cpu_count(),
            }
            run.write_info(counts, call | done)
        elif changed:
            run.write_info(counts)
        if settings.landmarks and "no_landmarks" in counts and "ok" not in counts:
            click.echo(_strangers(settings.landmarks, ranking), err=True)
        if landmarks and not told and (found_late := _common_mistake(ranking, counts)):
            click.echo(f"Warning: {found_late.describe(landmarks.path)}", err=True)
        if report:
            files.append(write_page(output, fetch=found.elsewhere, redact=redact))
    return counts, files


class _Found:
    """Photos as they are found.

    Args:
        photos: all of them.
        shard: only those that belong to it.

    Attributes:
        elsewhere: one of them was on another machine: who names it wants it fetched.
    """

    def __init__(self, photos: Iterable[PhotoSource], shard: Shard | None) -> None:
        self._photos, self._shard = photos, shard
        self.elsewhere = False

    def __iter__(self) -> Iterator[PhotoSource]:
        for photo in self._photos:
            if self._shard is None or self._shard.has(photo.path):
                self.elsewhere = self.elsewhere or is_elsewhere(photo.root)
                yield photo


def write_results(ranking: Ranking, formats: Sequence[str]) -> tuple[dict[str, int], list[Path]]:
    """Write a run's ranking in some formats; return counts of rows by status, and the files."""
    files = [ranking.run.folder / f"{ranking.name}.{file_format}" for file_format in formats]
    for file, file_format in zip(files, formats, strict=True):
        ranking.export(file, file_format)
    return ranking.counts(), files


def check_redact(*, report: bool, redact: bool) -> None:
    """Refuse to leave pictures out of a report that is not written.

    Raises:
        SettingsError: it is not.
    """
    if redact and not report:
        raise SettingsError("--redact is about the report; leave --no-report out")


def write_page(folder: Path, *, fetch: bool = False, redact: bool = False) -> Path:
    """Write a run's report, without pictures if they are redacted; see `write_report`."""
    from faceqan_toolkit.report.page import write_report

    click.echo("Writing the report", err=True)
    run, file = read_run(folder), folder / "report.html"
    return write_report(run, file, fetch=fetch, pictures=not redact).file


def finish(folder: Path, counts: Mapping[str, int], files: Sequence[Path]) -> None:
    """Tell what there is now, and exit with 3 if something has no result."""
    print_summary(read_run(folder), counts, files)
    if set(counts) - {"ok"}:
        raise click.exceptions.Exit(SOME_FAILED)


def _check_device(settings: Settings) -> None:
    """Refuse a device or a precision that is not here before there is a run folder."""
    # those are always there, and torch takes a second to load
    if settings.device in ("auto", "cpu") and settings.precision == "float32":
        return
    from faceqan_toolkit.device import check_precision, resolve_device

    check_precision(settings.precision, resolve_device(settings.device))


def _model(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Return the checksum of what scores come from and what `run.json` says of the model.

    Whatever is wrong with a model is found here, before there is a run folder.
    """
    if "quality" not in settings.stages:
        return "", {}
    found = find_model(settings.model.name, settings.model.options)
    weights = found.weights(settings.preset)
    if settings.method != "faceqan":
        # other methods suit some models only, and each finds that out when it is made
        make_estimator(settings.replace(device="cpu"), found.load())
    if settings.preset == "instant":
        click.echo(f"Note: preset instant: {head_of(found.name).notice}", err=True)
    if found.entry is not None:
        if found.entry.notice:
            click.echo(f"Note: {found.entry.notice}", err=True)
        return weights, {"name": found.name, **asdict(found.entry)}
    embedder = found.load()
    click.echo(f"{found.name}: {embedder.title}", err=True)
    for note in embedder.notes:
        click.echo(f"Note: {note}", err=True)
    if embedder.assumed:
        click.echo(assumed_text(embedder.assumed), err=True)
    return weights, {
        "name": found.name,
        "title": embedder.title,
        "family": embedder.family,
        "input_size": embedder.input_size,
        "template": embedder.template,
        "preprocessing": str(getattr(embedder, "preprocessing", "")),
        "assumed": list(embedder.assumed),
        "notes": list(embedder.notes),
    }


def _calibration(file: Path | None, settings: Settings, weights: str) -> Calibration | None:
    """Return what a file says, if it was made for such scores."""
    if file is None:
        return None
    calibration = read_calibration(file)
    calibration.check(settings.identity(weights), "this run")
    return calibration


def _strangers(landmarks: Path, ranking: Ranking) -> str:
    path, _ = ranking.examples()["no_landmarks"]
    return (
        f"Warning: no photo got a face from {landmarks}; its paths must be as in the results, "
        f"e.g. {printable(path)}, or absolute"
    )


def _common_mistake(ranking: Ranking, counts: Mapping[str, int]) -> CommonMistake | None:
    """Return the mistake in the landmarks of most of a run's faces; None if there is none."""
    if Unalignable.status not in counts:
        return None
    reasons = ranking.reasons(Unalignable.status)
    mistakes: dict[Mistake | None, int] = {
        mistake: reasons.get(mistake.reason, 0) for mistake in MISTAKES
    }
    return most_common(mistakes, sum(reasons.values()) + counts.get("ok", 0))


def _plan(photos: int, known: int) -> str:
    text = counted(photos, "photo")
    return f"{text}, {known:,} of them done before" if known else text


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C end the work in good order, and no other one disturb that."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted, and may say how
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)


def _process(
    run: Run,
    settings: Settings,
    todo: Iterable[PhotoSource],
    number: int,
) -> dict[str, Any]:
    """Run the engine over the photos, recording as it goes; return what it tells of itself.

    Args:
        run: takes the records.
        settings: for the engine.
        todo: the photos.
        number: of photos.
    """
    if not number:
        return {}
    from faceqan_toolkit.engines.choice import make_engine

    # a head is the package's own
    weights = run.identity.get("weights_sha256", "").partition("+")[0]
    engine = make_engine(settings, number, weights)
    try:
        with (
            _one_interrupt(),
            Progress(number) as progress,
            closing(engine.run(todo, settings, run.crops_folder)) as found,
        ):
            progress.loaded()
            for records in found:
                run.append(records)
                progress.advance(records)
    except KeyboardInterrupt:
        run.flush()
        click.echo(
            f"\nInterrupted. {progress.done:,} of {number:,} photos are recorded in "
            f"{run.folder}; the same command goes on from there.",
            err=True,
        )
        raise
    backend = {"backend": engine.backend} if engine.backend else {}
    return {
        **backend,
        "workers": engine.workers,
        # without loading, from the first photo to the last
        "processing_seconds": round(progress.seconds, 3),
        "seconds_by_stage": {stage: round(spent, 3) for stage, spent in engine.seconds.items()},
    }
