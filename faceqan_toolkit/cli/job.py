"""One run from the command line: what is to do, do it, write results, tell."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.calibration import Calibration, read_calibration
from faceqan_toolkit.cli import SOME_FAILED
from faceqan_toolkit.cli.options import assumed_text
from faceqan_toolkit.cli.progress import Progress
from faceqan_toolkit.cli.show import print_summary
from faceqan_toolkit.embedders.zoo import find_model
from faceqan_toolkit.estimators import make_estimator
from faceqan_toolkit.landmarks import LandmarksFile
from faceqan_toolkit.photos import find_photos
from faceqan_toolkit.ranking import Ranking
from faceqan_toolkit.runs import Run, read_run
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.sources.archives import ArchiveOptions
from faceqan_toolkit.types import PhotoSource, Record


def run_job(
    settings: Settings,
    inputs: Sequence[str],
    output: Path,
    formats: Sequence[str],
    *,
    archives: ArchiveOptions,
    retry_failed: bool,
    report: bool = False,
    calibration: Path | None = None,
) -> None:
    """Process photos into a run folder and exit with 0, or 3 if some have no result.

    Raises:
        FaceQANError: whatever stops the run; what was recorded until then is kept.
    """
    counts, files = make_run(
        settings,
        find_photos(inputs, options=archives),
        output,
        formats,
        retry_failed=retry_failed,
        report=report,
        calibration=calibration,
    )
    print_summary(read_run(output), counts, files)
    if set(counts) - {"ok"}:
        raise click.exceptions.Exit(SOME_FAILED)


def make_run(
    settings: Settings,
    photos: Iterable[PhotoSource],
    output: Path,
    formats: Sequence[str],
    *,
    retry_failed: bool,
    report: bool = False,
    calibration: Path | None = None,
) -> tuple[Mapping[str, int], list[Path]]:
    """Process photos into a run folder; return counts of rows by status, and the results' files.

    Raises:
        FaceQANError: whatever stops the run; what was recorded until then is kept.
    """
    started, clock = datetime.now(timezone.utc), time.monotonic()
    weights, model = _model(settings)
    calibrated = _calibration(calibration, settings, weights)
    sources = list(photos)
    with Run(output, settings, weights, model, retry_failed=retry_failed) as run:
        for line in run.repaired:
            click.echo(f"Warning: {line}", err=True)
        changed = calibrated is not None and run.use_calibration(
            calibrated.for_run(), calibrated.scale
        )
        todo = _todo(run, settings, sources)
        known = len(sources) - len(todo)
        click.echo(_plan(len(sources), known), err=True)
        done = _process(run, settings, todo)
        run.flush()
        ranking = Ranking(run.info)
        refined = _refine(run, settings, ranking) if settings.refine else {}
        run.compact()
        counts = ranking.counts()
        files = [output / f"{ranking.name}.{file_format}" for file_format in formats]
        for file, file_format in zip(files, formats, strict=True):
            ranking.export(file, file_format)
        if todo or refined:
            run.write_info(
                counts,
                {
                    "started": started.isoformat(timespec="seconds"),
                    "seconds": round(time.monotonic() - clock, 3),
                    "photos": len(todo),
                    "cores": os.cpu_count(),
                    **done,
                    **({"refined": refined} if refined else {}),
                },
            )
        elif changed:
            run.write_info(counts)
        if report:
            from faceqan_toolkit.report.page import write_report

            click.echo("Writing the report", err=True)
            files.append(write_report(read_run(output), output / "report.html").file)
    return counts, files


def _model(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Return the checksum of what scores come from and what `run.json` says of the model.

    Whatever is wrong with a model is found here, before there is a run folder.
    """
    if "quality" not in settings.stages:
        return "", {}
    found = find_model(settings.model, settings.model_options)
    weights = found.weights(settings.preset)
    if settings.method != "faceqan":
        # other methods suit some models only, and each finds that out when it is made
        make_estimator(replace(settings, device="cpu"), found.load())
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


def _todo(run: Run, settings: Settings, sources: list[PhotoSource]) -> list[PhotoSource]:
    """Return the photos the run lacks."""
    if settings.landmarks is None:
        return [source for source in sources if run.pending(source)]
    landmarks = LandmarksFile(settings.landmarks, settings)
    return [source for source in sources if run.pending(source, landmarks.identify(source))]


def _plan(photos: int, known: int) -> str:
    text = f"{photos:,} photo{'' if photos == 1 else 's'}"
    return f"{text}, {known:,} of them done before" if known else text


def _refine(run: Run, settings: Settings, ranking: Ranking) -> dict[str, Any]:
    """Measure the faces whose predicted scores are least certain."""
    doubts = ranking.uncertain(settings.refine, settings.refine_at)
    if not doubts:
        return {}
    faces = sum(len(doubt.faces) for doubt in doubts)
    click.echo(f"Refining: {faces:,} face{'' if faces == 1 else 's'}", err=True)
    by_path = {doubt.records[0].path: doubt for doubt in doubts}

    def resolve(measured: list[Record]) -> list[Record]:
        return by_path[measured[0].path].resolved(measured) if measured else []

    exact = replace(settings, preset="exact", refine=0.0, refine_at=None)
    done = _process(run, exact, [doubt.source for doubt in doubts], resolve)
    run.flush()
    return {"faces": faces, **done}


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
    todo: list[PhotoSource],
    resolve: Callable[[list[Record]], list[Record]] = lambda records: records,
) -> dict[str, Any]:
    """Run the engine over the photos, recording as it goes; return what it tells of itself.

    Args:
        run: takes the records.
        settings: for the engine.
        todo: the photos.
        resolve: makes of what the engine yields for a photo what is recorded; nothing keeps what
            the run has.
    """
    if not todo:
        return {}
    from faceqan_toolkit.engines.choice import make_engine

    # a head is the package's own
    weights = run.identity.get("weights_sha256", "").partition("+")[0]
    engine = make_engine(settings, len(todo), weights)
    try:
        with (
            _one_interrupt(),
            Progress(len(todo)) as progress,
            closing(engine.run(todo, settings, run.crops_folder)) as found,
        ):
            progress.loaded()
            for records in found:
                if resolved := resolve(records):
                    run.append(resolved)
                progress.advance(records)
    except KeyboardInterrupt:
        run.flush()
        click.echo(
            f"\nInterrupted. {progress.done:,} of {len(todo):,} photos are recorded in "
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
