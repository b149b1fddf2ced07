"""Calibration: quality thresholds and a scale from a run over labelled people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit import __version__
from faceqan_toolkit.errors import CalibrationError, RunError, SettingsError
from faceqan_toolkit.evaluation.datasets.base import PairList
from faceqan_toolkit.evaluation.datasets.readers import read_pairs
from faceqan_toolkit.evaluation.embeddings import embed_crops, read_embeddings
from faceqan_toolkit.evaluation.path_matching import match_paths
from faceqan_toolkit.evaluation.run_faces import kept_crop
from faceqan_toolkit.evaluation.thresholds import choose, faces_of, split_people
from faceqan_toolkit.evaluation.verification import identity_codes
from faceqan_toolkit.events import Advanced, Listener, Message, counting, silent
from faceqan_toolkit.files import check_replaceable
from faceqan_toolkit.results.calibration import (
    Calibration,
    fit_scale,
    is_calibration,
    made_with,
    write_calibration,
)
from faceqan_toolkit.results.identities import IdentityRule, main_faces
from faceqan_toolkit.results.model_of_run import model_of
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import counted

Rows = list[dict[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """Access to the run's crops and model.

    Attributes:
        device: device of the model.
        model: "package.module:factory" of a model that is made by code, see `run_model.model_of`.
        fetch: also read photos from other machines.
    """

    device: str = "auto"
    model: str | None = None
    fetch: bool = False


@dataclass(frozen=True)
class Labelled:
    """Scored faces with known identities.

    Attributes:
        rows: rows of the ranking, see `Ranking.main_faces`.
        identity: (N,) int64 identities.
        pairs: pairs to compare; None to compare all with all.
    """

    rows: Rows
    identity: NDArray[np.int64]
    pairs: PairList | None = None

    def only(self, kept: NDArray[np.bool_]) -> Labelled:
        """Return a subset of the faces with the pairs among them."""
        rows = [row for row, keep in zip(self.rows, kept, strict=True) if keep]
        if self.pairs is None:
            return Labelled(rows, self.identity[kept])
        return Labelled(rows, self.identity[kept], _renumbered(self.pairs, kept))


def calibrate(
    run: RunInfo,
    output: Path,
    targets: Sequence[tuple[str, float]],
    *,
    fmr: float = 1e-3,
    pairs: Path | None = None,
    identity: str | None = None,
    embeddings: Path | None = None,
    seed: int = 0,
    access: Access = Access(),
    tell: Listener = silent,
) -> Calibration:
    """Fit thresholds and a scale, write them to a file, and return them.

    Each threshold is fitted on one half of the identities and evaluated on the held-out half.

    Args:
        run: run with scores, of photos with known identities.
        output: calibration file; an existing calibration is replaced.
        targets: ("fnmr", rate) or ("discard", share) each, in (0, 1).
        fmr: false match rate of the similarity threshold.
        pairs: CSV file of pairs (a, b, label); None to compare all photos with all.
        identity: which photos show the same person, see `IdentityRule.parse`.
        embeddings: file of embeddings by path; None to embed the run's crops.
        seed: random seed of the split of the identities and of the intervals.
        access: access to the run's crops and model.
        tell: receives events.

    Raises:
        SettingsError: no target, a target outside (0, 1), or an invalid `identity`.
        CalibrationError: not enough data, or a run without scores.
        RunError, DatasetError, ScoresError, WeightsError: an input cannot be used, or the output
            cannot be written.
    """
    _check(targets, fmr)
    rule = IdentityRule.parse(identity)
    if pairs and identity:
        raise SettingsError("--pairs gives the identities; leave --identity out")
    folder = run.folder
    check_replaceable(output, is_calibration, "calibration")
    parts = made_with(run)
    if pairs:
        scored = Ranking(run).main_faces()
        labelled = _by_pairs(scored, folder, pairs, tell)
    else:
        scored, people = main_faces(run, rule)
        tell(Message(people.text()))
        labelled = _by_identity(scored, tell)
    if not labelled.rows:
        raise CalibrationError(_nobody(folder, scored, pairs or rule.table))
    needed = any(kind == "fnmr" for kind, _ in targets)
    known, vectors = _embedded(run, labelled, embeddings, access, needed, tell)
    quality = np.array([row["quality"] for row in known.rows])
    chosen = split_people(known.identity, seed)
    halves = [
        faces_of(quality, known.identity, half, vectors, known.pairs, fmr)
        for half in (chosen, ~chosen)
    ]
    name = str((run.content.get("model") or {}).get("name") or run.settings.model.name)
    scale = run.scale or fit_scale(
        re.sub(r"[^A-Za-z0-9]+", "-", name),
        str(parts["weights_sha256"]),
        np.array([row["quality"] for row in scored]),
    )
    calibration = Calibration(
        id="",
        model=name,
        made_with=parts,
        scale=scale,
        thresholds=tuple(choose(kind, target, fmr, *halves, seed=seed) for kind, target in targets),
        counts={
            "scored_photos": len(scored),
            "left_out": len(scored) - len(known.rows),
            "choosing_people": halves[0].people,
            "choosing_faces": len(halves[0].quality),
            "other_people": halves[1].people,
            "other_faces": len(halves[1].quality),
        },
        seed=seed,
        source={
            "run": str(folder),
            **({"pairs": str(pairs)} if pairs else {"identity": rule.title}),
            **({"embeddings": str(embeddings)} if embeddings else {}),
        },
        version=__version__,
    ).named()
    write_calibration(calibration, output)
    return calibration


def _embedded(
    run: RunInfo,
    labelled: Labelled,
    embeddings: Path | None,
    access: Access,
    needed: bool,
    tell: Listener,
) -> tuple[Labelled, NDArray[np.float32] | None]:
    """Return the photos with an embedding, and the embeddings; all photos and None without any.

    Raises:
        CalibrationError: fewer than two people remain.
    """
    vectors = _embeddings(run, labelled, embeddings, access, needed, tell)
    known = labelled
    if vectors is not None:
        there = np.asarray(np.isfinite(vectors).all(axis=1))
        known, vectors = labelled.only(there), vectors[there]
        _tell_lost(tell, len(labelled.rows) - len(known.rows), "left out: no embedding")
    people = len(np.unique(known.identity))
    if people < 2:
        raise CalibrationError(
            f"calibration needs at least two people, {run.folder} has {people}: give --identity to "
            "tell people apart by another folder of their paths, or by a table"
        )
    return known, vectors


def _check(targets: Sequence[tuple[str, float]], fmr: float) -> None:
    if not targets:
        raise SettingsError("give a target: --target-fnmr or --target-discard")
    if len(set(targets)) < len(targets):
        raise SettingsError("a target is given twice")
    for name, value in [("fmr", fmr), *((f"target-{kind}", target) for kind, target in targets)]:
        if not 0 < value < 1:
            raise SettingsError(f"{name} is {value}; it must be between 0 and 1")


def _nobody(folder: Path, scored: Rows, file: Path | None) -> str:
    if not scored:
        return f"{folder} has no scored photos"
    if file:
        return (
            f"{file} has no scored photo of {folder}: write paths as in the results, e.g. "
            f"{scored[0]['path']}"
        )
    return f"no scored photo of {folder} has an identity; give --identity FILE.csv, or --pairs FILE"


def _by_identity(scored: Rows, tell: Listener) -> Labelled:
    """Return the photos with exactly one identity."""
    known = [row for row in scored if row["identity"] is not None]
    rows = [row for row in known if not row["shared"]]
    if len(rows) < len(known):
        example = next(row["path"] for row in known if row["shared"])
        _tell_lost(
            tell,
            len(known) - len(rows),
            "left out: the same photo (sha256) has several identities",
            example,
        )
    return Labelled(rows, identity_codes([row["identity"] for row in rows]).astype(np.int64))


def _by_pairs(scored: Rows, folder: Path, file: Path, tell: Listener) -> Labelled:
    """Return the scored photos of a list of pairs, with the pairs."""
    dataset = read_pairs(folder, pairs=file)
    dataset.log.raise_errors()
    assert isinstance(dataset.pairs, PairList)
    listed = dataset.pairs
    ends = dataset.identities[listed.first], dataset.identities[listed.second]
    clash = np.flatnonzero((ends[0] == ends[1]) & ~listed.mated)
    if len(clash):
        where, line = listed.where(int(clash[0]))
        raise CalibrationError(
            f"{where}, line {line}: a non-mated pair of photos that other pairs connect to the "
            "same person"
        )
    match = match_paths(dataset.paths, [row["path"] for row in scored])
    there = match.index >= 0
    _tell_lost(tell, int((~there).sum()), f"of {file} left out: no score in the run")
    rows = [scored[place] for place in match.index[there]]
    pairs = _without_same_photos(_renumbered(listed, there), rows, tell)
    return Labelled(rows, dataset.identities[there], pairs)


def _without_same_photos(pairs: PairList, rows: Rows, tell: Listener) -> PairList:
    """Return pairs without non-mated pairs of the same photo, by sha256."""
    content = identity_codes([row["sha256"] or row["path"] for row in rows])
    same = (content[pairs.first] == content[pairs.second]) & ~pairs.mated
    if not same.any():
        return pairs
    place = int(np.argmax(same))
    one, other = (rows[ends[place]]["path"] for ends in (pairs.first, pairs.second))
    number = counted(int(same.sum()), "non-mated pair")
    tell(Message(f"{number} left out: both are the same photo (sha256), e.g. {one} and {other}"))
    return PairList(pairs.first[~same], pairs.second[~same], pairs.mated[~same])


def _renumbered(pairs: PairList, kept: NDArray[np.bool_]) -> PairList:
    """Return the pairs of kept samples, with indices into the kept samples."""
    inside = kept[pairs.first] & kept[pairs.second]
    place = np.cumsum(kept) - 1
    return PairList(place[pairs.first[inside]], place[pairs.second[inside]], pairs.mated[inside])


def _embeddings(
    run: RunInfo,
    labelled: Labelled,
    file: Path | None,
    access: Access,
    needed: bool,
    tell: Listener,
) -> NDArray[np.float32] | None:
    """Return (N, D) embeddings, NaN rows for none; None if there are none and none are needed."""
    if file is not None:
        found, match = read_embeddings(file).match([row["path"] for row in labelled.rows])
        if not (match.index >= 0).any():
            raise CalibrationError(f"{file} has no embedding of a photo of {run.folder}")
        return found
    if run.task != "score" and not any(row["crop"] for row in labelled.rows):
        if needed:
            raise RunError(
                f"{run.folder} has no crops to embed: give --embeddings FILE, or make the run "
                "without --no-crops"
            )
        return None
    crops = (kept_crop(run, row, fetch=access.fetch) for row in labelled.rows)
    vectors = embed_crops(crops, model_of(run, access.model).load(), device=access.device)
    tell(Message(f"Embedding {counted(len(labelled.rows), 'crop')}"))
    found = np.array(list(_counted(vectors, len(labelled.rows), tell)))
    if np.isnan(found).any(axis=1).all():
        if not needed:
            return None
        raise RunError(f"the crops of {run.folder} no longer exist: give --embeddings FILE")
    return found


def _counted(items: Iterable[T], total: int, tell: Listener) -> Iterator[T]:
    """Yield items and report the progress."""
    with counting(tell, total, "crop"):
        for item in items:
            yield item
            tell(Advanced(1))


def _tell_lost(tell: Listener, number: int, why: str, example: str = "") -> None:
    if number:
        more = f", e.g. {example}" if example else ""
        tell(Message(f"{counted(number, 'photo')} {why}{more}"))
