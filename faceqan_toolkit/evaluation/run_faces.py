"""Faces of a run: the score, the simple measures and the crop's file of each photo."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.evaluation.datasets.base import Dataset
from faceqan_toolkit.evaluation.path_matching import BARE_NAME_SQL, Match, bare_name, match_paths
from faceqan_toolkit.evaluation.result import Method
from faceqan_toolkit.registry import METHODS
from faceqan_toolkit.results.ranking import FEW_PHOTOS, differ_by_rounding
from faceqan_toolkit.runs.folder import RunInfo, crop_file, read_run
from faceqan_toolkit.runs.ledger import connect, fetch_value
from faceqan_toolkit.text import path_from_text

MEASURES = ("quality", "face_px", "sharpness", "confidence", "embedding_norm")

BASELINES = {
    "face size": "face_px", "sharpness": "sharpness", "detector confidence": "confidence",
    "embedding norm": "embedding_norm",
}  # fmt: skip
"""Simple measures that every method is compared with, and their columns in a run."""


@dataclass(frozen=True)
class RunFaces:
    """One face for each photo: the first one with a quality, else the first one.

    Attributes:
        run: the run.
        paths: (R,) paths of its photos, without repetitions.
        status: (R,) "ok" or the reason why there is no result.
        crops: (R,) crops of the faces, relative to the run folder; "" if none was written.
        values: (R,) float64 values of each of `MEASURES`, NaN for missing ones.
        others: number of further photos of the run.
    """

    run: RunInfo
    paths: tuple[str, ...]
    status: tuple[str, ...]
    crops: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    others: int = 0

    def match(self, wanted: Sequence[str]) -> tuple[RunFaces, Match]:
        """Return the faces of samples by their paths, in that order, and the match of the paths.

        A sample that the run does not have gets the status "not_in_run".
        """
        match = match_paths(wanted, self.paths)
        places = match.index.tolist()  # -1, the last one, for none
        status, crops = (*self.status, "not_in_run"), (*self.crops, "")
        return RunFaces(
            self.run, tuple(wanted), tuple(status[place] for place in places),
            tuple(crops[place] for place in places),
            {name: np.append(values, np.nan)[match.index] for name, values in self.values.items()},
        ), match  # fmt: skip

    def counts(self) -> dict[str, int]:
        """Return the number of photos by status, most frequent first."""
        return dict(Counter(self.status).most_common())

    @property
    def cut_as(self) -> tuple[str, int] | None:
        """Template and size of the crops; None if unknown, or if the photos are crops already."""
        settings = self.run.content["settings"]
        if settings["task"] == "align":
            return settings["template"], settings["crop_size"]
        model = self.run.content.get("model") or {}
        if settings["task"] == "score" or "template" not in model:
            return None
        return model["template"], model["input_size"]


def read_run_faces(folder: Path, wanted: Sequence[str] | None = None) -> RunFaces:
    """Return the faces of a run folder; RunError if it is not one, or a damaged one.

    `wanted` are paths to be matched later: photos that cannot match any of them are only counted,
    so memory grows with these paths and not with the run. None reads all photos.
    """
    run = read_run(folder)
    columns = ", ".join(f"CAST({name} AS DOUBLE) AS {name}" for name in MEASURES)
    with connect(ledger=run.ledger) as connection:
        # not a count of first faces: a photo's only record may be of any face
        photos = fetch_value(connection, "SELECT count(DISTINCT path) FROM ledger")
        if not photos:
            raise RunError(f"{folder} has no photos")
        chosen = "true"
        if wanted is not None:
            names = pa.table({"name": sorted({bare_name(path) for path in wanted})})
            connection.register("wanted_names", names)
            # the optimiser would hash the whole ledger, which it takes for the smaller side
            connection.execute("SET disabled_optimizers = 'build_side_probe_side,join_order'")
            chosen = f"{BARE_NAME_SQL} IN (SELECT name FROM wanted_names)"
        found = connection.execute(
            f"""SELECT path, status, coalesce(crop, '') AS crop, {columns} FROM ledger
            WHERE {chosen}
            QUALIFY row_number() OVER (
                PARTITION BY path ORDER BY quality IS NULL, status <> 'ok', face
            ) = 1 ORDER BY path"""
        ).fetchnumpy()
    return RunFaces(
        run, tuple(found["path"].tolist()), tuple(map(sys.intern, found["status"].tolist())),
        tuple(found["crop"].tolist()),
        {name: np.ma.filled(found[name], np.nan) for name in MEASURES},
        photos - len(found["path"]),
    )  # fmt: skip


def crop_files(dataset: Dataset, faces: RunFaces) -> list[Path | None]:
    """Return the files of the aligned crops of a data set's faces, None for a sample without.

    RunError if the run has no crops.
    """
    folder, task = faces.run.folder, faces.run.task
    if task == "score":  # its photos are crops
        return [
            dataset.root / path_from_text(path) if status == "ok" else None
            for path, status in zip(dataset.paths, faces.status, strict=True)
        ]
    if not any(faces.crops) and "ok" in faces.status:
        raise RunError(
            f"{folder} has no crops to embed; use a run of align, or of align-and-score with crops"
        )
    return [crop_file(folder, crop) for crop in faces.crops]


def face_policy(run: RunInfo) -> str | None:
    """Return the `--faces` of a run; None if crops or landmarks were given."""
    settings = run.content["settings"]
    if run.task == "score" or settings.get("landmarks"):
        return None
    return str(settings.get("faces"))


def other_faces(run: RunInfo, dataset: Dataset, policy: str | None) -> str:
    """Return a warning if a run was made with another `--faces`, else "".

    `policy` is that of the evaluation; None if the faces are given.
    """
    made = face_policy(run)
    if None in (policy, made) or made == policy:
        return ""
    return (
        f"Warning: {run.folder} was made with --faces {made}, {dataset.name} takes --faces "
        f"{policy}: in photos with several faces it may have scored another person's face"
    )


def own_method(faces: RunFaces, recogniser_sha256: str) -> dict[str, Method]:
    """Return the run's quality by the name of its method; empty if it has no quality."""
    if np.isnan(faces.values["quality"]).all():
        return {}
    settings = faces.run.content["settings"]
    method = METHODS.get(settings["method"])
    name = method.title if method else settings["method"]
    if settings["method"] == "faceqan" and settings["preset"] != "exact":
        name += f" {settings['preset']}"
    if settings.get("eps_mode") == "contrast":
        name += ", eps by contrast"
    if settings.get("refine"):
        name += ", refined"
    return {name: Method(faces.values["quality"], note=model_note(faces.run, recogniser_sha256))}


def baselines(
    faces: RunFaces, taken: Mapping[str, Method], recogniser_sha256: str
) -> tuple[dict[str, Method], list[str]]:
    """Return the simple measures of a run, and lines that name the omitted ones.

    A measure is omitted if some faces lack it, or if it is the same for all faces; one with the
    name of a method in `taken` is skipped.
    """
    found = np.array([status == "ok" for status in faces.status])
    made, lacking, equal = {}, [], []
    for name, column in BASELINES.items():
        values = faces.values[column]
        if name in taken:
            continue
        if not found.any() or np.isnan(values[found]).any():
            lacking.append(name)
        elif is_constant(values):
            equal.append(name)
        else:
            note = model_note(faces.run, recogniser_sha256) if column == "embedding_norm" else ""
            made[name] = Method(values, "simple", note)
    told = {"Not measured in this run": lacking, "Left out, the same for all faces": equal}
    return made, [f"{why}: {', '.join(names)}" for why, names in told.items() if names]


def is_constant(values: ArrayLike) -> bool:
    """Return whether three or more values are all equal up to rounding; NaN is ignored."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return known.size >= FEW_PHOTOS and differ_by_rounding(float(known.min()), float(known.max()))


def model_note(run: RunInfo, recogniser_sha256: str) -> str:
    """Return "S" if a run used the recogniser's model, "C" for another one, "" without a model."""
    model = run.content.get("model")
    if not model:
        return ""
    return "S" if model["sha256"] == recogniser_sha256 else "C"
