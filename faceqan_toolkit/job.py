"""The main job: photos in, a run folder with ranking and report out; and the merge of runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from faceqan_toolkit import events
from faceqan_toolkit.detection.landmarks_file import CommonMistake, LandmarksFile, most_common
from faceqan_toolkit.errors import SettingsError, Unalignable
from faceqan_toolkit.events import Listener, counting, silent
from faceqan_toolkit.geometry import MISTAKES, Mistake
from faceqan_toolkit.hardware import check_precision, interrupt_handler, resolve_device
from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.models.registry import head_of
from faceqan_toolkit.photos.find import NO_PHOTOS, is_elsewhere
from faceqan_toolkit.quality.registry import make_estimator
from faceqan_toolkit.report.page import write_report
from faceqan_toolkit.results.calibration import read_calibration
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo, RunWriter, read_run
from faceqan_toolkit.runs.merging import check_alike, merge
from faceqan_toolkit.runs.todo import Shard, Todo
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.text import printable
from faceqan_toolkit.types import PhotoSource


def process_photos(
    photos: Iterable[PhotoSource], output: Path, settings: Settings, *,
    formats: Sequence[str] = ("csv",), retry_failed: bool = False, shard: Shard | None = None,
    report: bool = False, redact: bool = False, calibration: Path | None = None,
    tell: Listener = silent,
) -> None:  # fmt: skip
    """Process the photos that a run folder lacks, then write its results; see `api.run`.

    Photos are read as they are found; neither they nor the run need to fit into memory.
    """
    started, clock = datetime.now(timezone.utc), time.monotonic()
    check_redact(report=report, redact=redact)
    # the defaults always exist, and torch takes a second to load
    if settings.device not in ("auto", "cpu") or settings.precision != "float32":
        check_precision(settings.precision, resolve_device(settings.device))
    weights, model = _describe_model(settings, tell)
    calibrated = read_calibration(calibration) if calibration else None
    if calibrated:
        calibrated.check(settings.identity(weights), "this run")
    found = _Found(photos, shard)
    with (
        Todo(output, found) as todo,
        RunWriter(output, settings, weights, model, shard=str(shard) if shard else None) as run,
    ):
        for line in run.repaired:
            tell(events.Warned(line))
        changed = calibrated and run.use_calibration(calibrated.for_run(), calibrated.scale)
        landmarks = LandmarksFile(settings.landmarks, settings) if settings.landmarks else None
        identify = landmarks.identify if landmarks else lambda _: ""
        todo.compare(run, identify, retry_failed=retry_failed)
        tell(events.Planned(todo.asked, todo.asked - len(todo)))
        if not found.number:
            tell(events.NoPhotos(NO_PHOTOS))
        told = landmarks and landmarks.common_mistake()
        if landmarks and told:
            tell(events.Warned(told.describe(landmarks.path)))
        done = _process(run, todo, tell)
        todo.close()
        run.flush()
        run.compact()
        ranking = Ranking(run.info)
        counts = write_results(ranking, formats, tell)
        if done:
            seconds = round(time.monotonic() - clock, 3)
            call = {
                "started": started.isoformat(timespec="seconds"), "seconds": seconds,
                "photos": len(todo), "cores": os.cpu_count(),
            }  # fmt: skip
            run.write_info(counts, call | done)
        elif changed:
            run.write_info(counts)
        if settings.landmarks and "no_landmarks" in counts and "ok" not in counts:
            path, _ = ranking.examples()["no_landmarks"]
            wanted = f"as in the results, e.g. {printable(path)}, or absolute"
            text = f"no photo got a face from {settings.landmarks}; its paths must be {wanted}"
            tell(events.Warned(text))
        if landmarks and not told and (mistake := _common_mistake(ranking, counts)):
            tell(events.Warned(mistake.describe(landmarks.path)))
        if report:
            write_page(output, fetch=found.elsewhere, redact=redact, tell=tell)


@dataclass
class _Found:
    """Photos as they are found.

    Attributes:
        photos: all of them.
        shard: shard that photos must belong to; None takes all.
        number: number of photos so far, of all shards.
        elsewhere: whether one of them was on another machine, so the report may fetch photos.
    """

    photos: Iterable[PhotoSource]
    shard: Shard | None
    number: int = 0
    elsewhere: bool = False

    def __iter__(self) -> Iterator[PhotoSource]:
        for photo in self.photos:
            self.number += 1
            if self.shard is None or self.shard.has(photo.path):
                self.elsewhere = self.elsewhere or is_elsewhere(photo.root)
                yield photo


def merge_runs(
    runs: Sequence[RunInfo], output: Path, *, formats: Sequence[str], report: bool, redact: bool,
    tell: Listener,
) -> None:  # fmt: skip
    """Merge runs into a run folder and write its results; see `api.merge`."""
    check_redact(report=report, redact=redact)
    check_alike(runs)
    for run in runs:
        if not _has_ended(Ranking(run)):
            again = "give it again and merge again, or photos will be missing"
            tell(events.Warned(f"the last command on {run.folder} did not end; {again}"))
    with merge(runs, output) as merged:
        ranking = Ranking(merged.info)
        merged.write_info(write_results(ranking, formats, tell))
        if report and ranking.scored:
            write_page(output, redact=redact, tell=tell)


def _has_ended(ranking: Ranking) -> bool:
    """Return whether the last command on a run has written its results."""
    counts = ranking.counts()
    results = ranking.run.folder.glob(f"{ranking.name}.*")
    return counts == ranking.run.content.get("counts") and bool(counts or any(results))


def write_results(ranking: Ranking, formats: Sequence[str], tell: Listener) -> dict[str, int]:
    """Write a run's ranking in each format; return the number of rows by status."""
    for file_format in formats:
        file = ranking.run.folder / f"{ranking.name}.{file_format}"
        ranking.export(file, file_format)
        tell(events.Wrote(file))
    return ranking.counts()


def check_redact(*, report: bool, redact: bool) -> None:
    """Raise SettingsError for `redact` without a report."""
    if redact and not report:
        raise SettingsError("`redact` leaves pictures out of the report, so it needs `report`")


def write_page(folder: Path, *, fetch: bool = False, redact: bool, tell: Listener) -> None:
    """Write `report.html` of a run folder; see `write_report`."""
    tell(events.Message("Writing the report"))
    file = folder / "report.html"
    write_report(read_run(folder), file, fetch=fetch, pictures=not redact)
    tell(events.Wrote(file))


def _describe_model(settings: Settings, tell: Listener) -> tuple[str, dict[str, Any]]:
    """Return the sha256 of the model, and its entry in `run.json`.

    Errors of the model are raised here, before the run folder is made.
    """
    if "quality" not in settings.stages:
        return "", {}
    found = find_model(settings.model.name, settings.model.options)
    weights = found.weights(settings.preset)
    if settings.method != "faceqan":
        # other methods work with some models only, and check that when they are made
        make_estimator(settings.replace(device="cpu"), found.load())
    if settings.preset == "instant":
        tell(events.Note(f"preset instant: {head_of(found.name).notice}"))
    if found.entry is not None:
        if found.entry.notice:
            tell(events.Note(found.entry.notice))
        return weights, {"name": found.name, **asdict(found.entry)}
    embedder = found.load()
    tell(events.Message(f"{found.name}: {embedder.title}"))
    for note in embedder.notes:
        tell(events.Note(note))
    if embedder.assumed:
        tell(events.Message(assumed_text(embedder.assumed)))
    return weights, {
        "name": found.name, "title": embedder.title, "family": embedder.family,
        "input_size": embedder.input_size, "template": embedder.template,
        "preprocessing": str(getattr(embedder, "preprocessing", "")),
        "assumed": list(embedder.assumed), "notes": list(embedder.notes),
    }  # fmt: skip


def assumed_text(assumed: Sequence[str]) -> str:
    """Return a note on values that a weights file does not hold."""
    return (
        "A weights file does not hold these values, so the network's usual ones are used: "
        f"{', '.join(assumed)}. Other values: `channels`, `pixel_mean`, `pixel_std`, `norm_eps`."
    )


def _common_mistake(ranking: Ranking, counts: Mapping[str, int]) -> CommonMistake | None:
    """Return the mistake in the landmarks of most of a run's faces; None if there is none."""
    if Unalignable.status not in counts:
        return None
    reasons = ranking.reasons(Unalignable.status)
    mistakes: dict[Mistake | None, int] = {one: reasons.get(one.reason, 0) for one in MISTAKES}
    return most_common(mistakes, sum(reasons.values()) + counts.get("ok", 0))


def _interrupt_once(*_: object) -> None:
    """Let the first Ctrl-C end the work in good order, and ignore further ones."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _process(run: RunWriter, todo: Todo, tell: Listener) -> dict[str, Any]:
    """Run the engine over the photos and record their results; return its figures for run.json."""
    if not len(todo):
        return {}
    from faceqan_toolkit.engines.choice import make_engine

    # the checksum after the plus is that of the preset's predictor
    weights = run.identity.get("weights_sha256", "").partition("+")[0]
    engine = make_engine(run.settings, len(todo), weights)
    begun, done = time.monotonic(), 0
    try:
        with (
            interrupt_handler(_interrupt_once),
            counting(tell, len(todo)),
            closing(engine.run(todo, run.settings, run.crops_folder, tell)) as found,
        ):
            tell(events.Loaded(engine.workers))
            begun = time.monotonic()
            for records in found:
                run.append(records)
                done += 1
                tell(events.Advanced(1, records))
    except KeyboardInterrupt:
        run.flush()
        tell(events.Interrupted(done, len(todo), run.folder))
        raise
    # without loading, from the first photo to the last
    seconds = round(time.monotonic() - begun, 3)
    stages = {stage: round(spent, 3) for stage, spent in engine.seconds.items()}
    tell(events.Timed(seconds, engine.workers, engine.backend, stages))
    backend = {"backend": engine.backend} if engine.backend else {}
    figures = {"processing_seconds": seconds, "seconds_by_stage": stages}
    return {**backend, "workers": engine.workers, **figures}
