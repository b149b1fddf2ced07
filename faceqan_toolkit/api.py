"""The library's verbs: what each command does, as a function or a method of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.events import Listener, listener
from faceqan_toolkit.files import check_replaceable
from faceqan_toolkit.photos.find import ArchiveOptions, stream_photos
from faceqan_toolkit.photos.video import Every, parse_every
from faceqan_toolkit.results.calibration import Calibration
from faceqan_toolkit.results.filtering import (
    Rules,
    Selection,
    calibrated_quality,
    number_or_percentage,
)
from faceqan_toolkit.results.groups import Grouping, IdentityRule
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo, read_run
from faceqan_toolkit.runs.todo import Shard
from faceqan_toolkit.settings import Settings

if TYPE_CHECKING:
    from faceqan_toolkit.evaluation.result import Evaluation
    from faceqan_toolkit.photos.memory import ImageLike
    from faceqan_toolkit.pipeline import Pipeline
    from faceqan_toolkit.report.page import Report
    from faceqan_toolkit.types import AlignedCrop, Face


class Run(RunInfo):
    """A run folder, made by `run` or opened by `open_run`: its settings, records and results.

    Attributes:
        folder: the run folder.
        content: content of its `run.json`.
    """

    def ranking(self) -> Ranking:
        """Return its rows in order, best quality first, failures last; RunError if damaged."""
        return Ranking(self)

    def counts(self) -> dict[str, int]:
        """Return the number of rows by status: faces for "ok", photos for most others."""
        return self.ranking().counts()

    def filter(
        self, *, min_quality: float | None = None, calibration: Path | str | None = None,
        target_fnmr: float | None = None, target_discard: float | None = None,
        identity: str | None = None, keep_top: int | str | None = None,
        drop_status: Iterable[str] = (), fetch: bool = False, progress: bool | Listener = False,
        **conditions: Any,
    ) -> Selection:  # fmt: skip
        """Return the photos or crops that meet every condition, before any file is changed.

        Args:
            min_quality: least quality.
            calibration: a file of `calibrate`, whose threshold replaces `min_quality`.
            target_fnmr, target_discard: which of its thresholds, if it has several.
            identity: part of the path that names a person: "first", "last" or a number; or a CSV
                file.
            keep_top: number of the best to keep, or a percentage of the scored ones: "80%".
            drop_status: statuses whose photos are not kept, for instance "no_face".
            fetch: read photos on other machines.
            progress: True shows messages on standard error; a function gets `events`.
            conditions: the other fields of `Rules`: `per_identity`, `min_percentile`, `what`, ...

        Raises:
            SettingsError: no condition, or an impossible one.
            CalibrationError: the calibration was made for other scores.
        """
        if calibration is not None:
            if min_quality is not None:
                raise SettingsError("`calibration` gives the quality: leave `min_quality` out")
            min_quality = calibrated_quality(
                self, Path(calibration), target_fnmr=target_fnmr, target_discard=target_discard
            )
        elif target_fnmr is not None or target_discard is not None:
            raise SettingsError("`target_fnmr` and `target_discard` need `calibration` FILE")
        if isinstance(keep_top, str):
            keep_top, conditions["keep_percent"] = number_or_percentage(keep_top)
        rules = Rules(
            min_quality=min_quality,
            identity=IdentityRule.parse(identity),
            keep_top=keep_top,
            drop_status=frozenset(drop_status),
            **conditions,
        )
        return Selection(self, rules, fetch=fetch, tell=listener(progress))

    def report(
        self, target: Path | str | None = None, *, pictures: bool = True, photos: bool = True,
        group_by: str | None = None, groups: Path | None = None, below: float | None = None,
        fetch: bool = False,
    ) -> Report:  # fmt: skip
        """Write the HTML report.

        Args:
            target: the file; None for `report.html` in the run folder.
            pictures: show crops and photos.
            photos: show the photos beside the crops.
            group_by: "folder", or a column of `groups`: summarise the faces of each group.
            groups: CSV file with the columns path and `group_by`.
            below: quality threshold that the page opens with.
            fetch: read photos on other machines.

        Raises:
            RunError: it cannot be written, another file is in its place, or the run is damaged.
        """
        from faceqan_toolkit.report.page import write_report

        self.check_threshold(below)
        file = _path(target) or self.folder / "report.html"
        check_replaceable(file, _is_page, "HTML page")
        return write_report(
            self, file, pictures=pictures, photos=photos, below=below, fetch=fetch,
            grouping=Grouping(group_by, groups) if group_by is not None else None,
        )  # fmt: skip

    def calibrate(
        self, output: Path | str | None = None, *, target_fnmr: float | Sequence[float] = (),
        target_discard: float | Sequence[float] = (), fmr: float = 1e-3,
        pairs: Path | str | None = None, identity: str | None = None,
        embeddings: Path | str | None = None, seed: int = 0, device: str = "auto",
        model: str | None = None, fetch: bool = False, progress: bool | Listener = False,
    ) -> Calibration:  # fmt: skip
        """Find quality thresholds and a 0..100 scale over labelled people; write them to a file.

        Args:
            output: the file; None for `calibration.json` in the run folder.
            target_fnmr: thresholds for these false non-match rates, in (0, 1).
            target_discard: thresholds that discard these shares of the faces, in (0, 1).
            fmr, pairs, identity, embeddings, seed, device, model, fetch: see
                `evaluation.calibrate.calibrate`.
            progress: True shows a bar on standard error; a function gets `events`.

        Raises:
            CalibrationError: not enough data, or a run without scores.
        """
        from faceqan_toolkit.evaluation.calibrate import calibrate

        targets = [("fnmr", value) for value in _several(target_fnmr)]
        targets += [("discard", value) for value in _several(target_discard)]
        return calibrate(
            self, _path(output) or self.folder / "calibration.json", targets, fmr=fmr,
            pairs=_path(pairs), identity=identity, embeddings=_path(embeddings), seed=seed,
            device=device, model=model, fetch=fetch, tell=listener(progress),
        )  # fmt: skip


def open_run(folder: Path | str) -> Run:
    """Return the run in a folder; RunError if it is no run folder, or its records are gone."""
    run = Run(**vars(read_run(Path(folder))))
    if any((run.content.get("counts") or {}).values()) and not run.ledger.parts:
        raise RunError(
            f"{folder} has lost its records: run.json counts some, {run.ledger.folder} has none; "
            "give the command that made the run again"
        )
    return run


def run(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], output: Path | str,
    settings: Settings | None = None, *, formats: Sequence[str] = ("csv",),
    retry_failed: bool = False, shard: str | Shard | None = None, every: str | Every = "1s",
    image_column: str = "", report: bool = True, redact: bool = False,
    calibration: Path | str | None = None, progress: bool | Listener = False,
) -> Run:  # fmt: skip
    """Do what `align-and-score` does: find, detect, align, score, rank, report.

    `Settings(task=...)` chooses the stages: "align-and-score", "detect", "align" or "score". The
    same call again continues where it stopped, and adds new photos.

    Args:
        inputs: a folder, file, archive, video, glob pattern, URL or `@list.txt`, or several.
        output: the run folder; made if it is missing.
        settings: None for the defaults.
        formats: formats of the ranking: "csv", "jsonl", "parquet".
        retry_failed: retry every photo without a result.
        shard: "I/N": only the Ith of N parts of the photos.
        every: frames of videos: "10" takes one in 10, "0.5s" one every half second.
        image_column: column of parquet files that holds the photos; "" finds it.
        report: write `report.html`.
        redact: omit all pictures from the report.
        calibration: a file of `calibrate`.
        progress: True shows a bar on standard error; a function gets `events`.

    Raises:
        SettingsError: an input that does not exist, or an invalid option.
        RunError: the run folder cannot be used, for instance because its settings differ.
        FaceQANError: any other error that stops the run; its records so far are kept.
    """
    from faceqan_toolkit.job import process_photos

    given = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    options = ArchiveOptions(parse_every(every) if isinstance(every, str) else every, image_column)
    settings = settings or Settings()
    process_photos(
        stream_photos(given, options=options), Path(output), settings,
        formats=formats, retry_failed=retry_failed,
        shard=Shard.parse(shard) if isinstance(shard, str) else shard,
        report=report and "quality" in settings.stages, redact=redact,
        calibration=_path(calibration), tell=listener(progress),
    )  # fmt: skip
    return open_run(output)


def merge(
    runs: Sequence[RunInfo | Path | str], output: Path | str, *, formats: Sequence[str] = ("csv",),
    report: bool = True, redact: bool = False, progress: bool | Listener = False,
) -> Run:  # fmt: skip
    """Join runs of the same model and settings, shards for instance, into a new one.

    If several runs have the same photo, the last one without a failure counts.

    Args:
        runs: runs or run folders; they are not changed.
        output: new run folder, or that of the same merge before.
        formats, report, redact, progress: see `run`.

    Raises:
        RunError: they cannot be merged, or not into that folder.
    """
    from faceqan_toolkit.job import merge_runs

    merge_runs(
        [item if isinstance(item, RunInfo) else read_run(Path(item)) for item in runs],
        Path(output), formats=formats, report=report, redact=redact, tell=listener(progress),
    )  # fmt: skip
    return open_run(output)


def evaluate(
    dataset: str, root: Path | str, output: Path | str, settings: Settings | None = None, *,
    scores: Mapping[str, Path | str] | None = None, embeddings: Path | str | None = None,
    run: RunInfo | Path | str | None = None, model: str | None = None, flip: bool = False,
    aligned: bool | None = None, pairs: Path | str | None = None,
    non_mated: int | Literal["all"] | None = None, identity: str | None = None,
    name: str | None = None, figures: Sequence[str] = ("pdf", "svg", "png"),
    progress: bool | Listener = False, **options: Any,
) -> Evaluation:  # fmt: skip
    """Measure how well quality predicts recognition errors; write tables, figures and a page.

    Args:
        dataset: "lfw", "xqlfw", "cfp-fp", "bin", "ijbc", "pairs", "folders", or one of a package.
        root: folder or file of the data set.
        output: folder for results and intermediate files; the same call continues there.
        settings: settings of the scores; None for the defaults with the data set's face policy.
        scores: files of scores made elsewhere, by method.
        embeddings: file of embeddings made elsewhere; None computes them.
        run: a run with faces and scores; None makes one.
        model: recognition model whose errors are counted; None for that of the settings.
        flip: add the mirror image's embedding to each.
        aligned: the photos are aligned crops; None for the data set's own.
        pairs: another list of pairs than the data set's.
        non_mated, identity: for "folders", see `evaluation.datasets.readers.read_folders`.
        name: name of the data set in tables and figures.
        figures: formats of the figures.
        progress: True shows messages and bars on standard error; a function gets `events`.
        options: fields of `EvaluationOptions`: `fmr_targets`, `replicates`, `seed`, ...

    Raises:
        SettingsError: an invalid argument.
        FaceQANError: any other error that stops it; scores and embeddings so far are kept.
    """
    from faceqan_toolkit.evaluation.evaluate import (
        Inputs,
        evaluate_opened,
        has_aligned_photos,
        open_dataset,
    )
    from faceqan_toolkit.evaluation.options import EvaluationOptions

    tell, place, wanted = listener(progress), Path(root), EvaluationOptions(**options)
    opened = open_dataset(
        dataset, place, pairs=_path(pairs), non_mated=non_mated, identity=identity,
        seed=wanted.seed if dataset == "folders" else None, tell=tell,
    )  # fmt: skip
    chosen = settings or Settings(faces=opened.faces or "largest")
    if has_aligned_photos(dataset, opened, aligned, tell):
        chosen = chosen.replace(task="score")
    inputs = Inputs(
        settings=chosen, chosen_faces=settings is not None, model=model, flip=flip,
        run=run.folder if isinstance(run, RunInfo) else _path(run),
        scores=[f"{method}={file}" for method, file in (scores or {}).items()],
        embeddings=str(embeddings) if embeddings else None, name=name, figures=figures,
        pairs=_path(pairs),
    )  # fmt: skip
    evaluation, _ = evaluate_opened(dataset, place, opened, Path(output), inputs, wanted, tell)
    return evaluation


def detect(image: ImageLike, settings: Settings | None = None) -> list[Face]:
    """Return the faces in an image, largest first; see `Pipeline.detect`."""
    return _aligner(settings or Settings()).detect(image)


def align(
    image: ImageLike, face: Face | None = None, settings: Settings | None = None
) -> AlignedCrop:
    """Return a face cut out as the recognition model wants it; see `Pipeline.align`."""
    return _aligner(settings or Settings()).align(image, face)


@lru_cache(maxsize=4)
def _aligner(settings: Settings) -> Pipeline:
    """Return a pipeline that detects and aligns, kept for the next call."""
    from faceqan_toolkit.pipeline import Pipeline

    return Pipeline(settings, scoring=False)


def _path(value: Path | str | None) -> Path | None:
    return Path(value) if value else None


def _is_page(head: bytes) -> bool:
    return head.lstrip()[:14].lower() == b"<!doctype html"


def _several(value: float | Sequence[float]) -> Sequence[float]:
    return value if isinstance(value, Sequence) else [value]
