"""Calibration: quality thresholds and a scale from a run over labelled people.

Each quality threshold, for a target error rate or discard share, is fitted on one half of the
people and evaluated on the held-out half.

The similarity threshold is the smallest one with the wanted false match rate (`verification`).
Discarding the faces below a quality threshold discards their comparisons. The quality threshold for
a false non-match rate is the smallest one at which the remaining comparisons reach that rate: where
the error-versus-discard curve ("fixed", see `curves`) first comes down to it. It is rounded down to
the fewest decimals that discard the same faces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from faceqan_toolkit import __version__
from faceqan_toolkit.errors import CalibrationError, PhotoError, RunError, SettingsError
from faceqan_toolkit.evaluation import curves
from faceqan_toolkit.evaluation.datasets.base import PairList
from faceqan_toolkit.evaluation.datasets.readers import read_pairs
from faceqan_toolkit.evaluation.embeddings import Vectors, embed_crops, read_embeddings
from faceqan_toolkit.evaluation.options import check_target
from faceqan_toolkit.evaluation.path_matching import match_paths
from faceqan_toolkit.evaluation.verification import (
    Block,
    Bools,
    Codes,
    Comparisons,
    Floats,
    Ints,
    NonMatedCollector,
    identity_codes,
    rejected,
)
from faceqan_toolkit.events import Advanced, Listener, Message, counting, silent
from faceqan_toolkit.files import check_replaceable
from faceqan_toolkit.results.calibration import (
    ENOUGH_ERRORS,
    Calibration,
    Errors,
    Rate,
    Threshold,
    fit_scale,
    is_calibration,
    made_with,
    write_calibration,
)
from faceqan_toolkit.results.crops import RunCrops, model_of
from faceqan_toolkit.results.groups import IdentityRule, main_faces
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import counted, shortest_between
from faceqan_toolkit.types import Pixels

Rows = list[dict[str, Any]]
REPLICATES = 1000
BLOCK_VALUES = 1 << 22
"""Similarities computed together."""


@dataclass(frozen=True)
class Labelled:
    """Scored faces (rows of `Ranking.main_faces`) with known (N,) identities.

    `pairs` are the pairs to compare, None to compare all with all.
    """

    rows: Rows
    identity: Ints
    pairs: PairList | None = None

    def only(self, kept: Bools) -> Labelled:
        """Return a subset of the faces with the pairs among them."""
        rows = list(compress(self.rows, kept))
        pairs = None if self.pairs is None else _renumbered(self.pairs, kept)
        return Labelled(rows, self.identity[kept], pairs)


def calibrate(
    run: RunInfo, output: Path, targets: Sequence[tuple[str, float]], *, fmr: float = 1e-3,
    pairs: Path | None = None, identity: str | None = None, embeddings: Path | None = None,
    seed: int = 0, device: str = "auto", model: str | None = None, fetch: bool = False,
    tell: Listener = silent,
) -> Calibration:  # fmt: skip
    """Fit thresholds and a scale, write them to a file, and return them.

    Args:
        run: run with scores, of photos with known identities.
        output: calibration file; an existing calibration is replaced.
        targets: ("fnmr", rate) or ("discard", share) each, in (0, 1).
        fmr: false match rate of the similarity threshold.
        pairs: CSV file of pairs (a, b, label); None to compare all photos with all.
        identity: which photos show the same person, see `IdentityRule.parse`.
        embeddings: file of embeddings by path; None to embed the run's crops.
        seed: random seed of the split of the identities and of the intervals.
        model: "package.module:factory" of a model made by code, see `results.crops.model_of`.
        fetch: also read photos from other machines.

    Raises:
        SettingsError: no target, a target outside (0, 1), or an invalid `identity`.
        CalibrationError: not enough data, or a run without scores.
        RunError, DatasetError, ScoresError, WeightsError: an input cannot be used, or the output
            cannot be written.
    """
    _check(targets, fmr)
    rule = IdentityRule.parse(identity)
    if pairs and identity:
        raise SettingsError("`pairs` gives the identities; leave `identity` out")
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
    vectors: Vectors | None = (
        _read(embeddings, run, labelled.rows) if embeddings
        else _embed(run, labelled.rows, needed, tell, device=device, model=model, fetch=fetch)
    )  # fmt: skip
    known = labelled
    if vectors is not None:
        there = np.asarray(np.isfinite(vectors).all(axis=1))
        known, vectors = labelled.only(there), vectors[there]
        _tell_lost(tell, len(labelled.rows) - len(known.rows), "left out: no embedding")
    _refuse_few_people(run, known)
    quality = np.array([row["quality"] for row in known.rows])
    chosen = split_people(known.identity, seed)
    halves = [
        faces_of(quality, known.identity, half, vectors, known.pairs, fmr)
        for half in (chosen, ~chosen)
    ]
    title = str((run.content.get("model") or {}).get("name") or run.settings.model.name)
    scale = run.scale or fit_scale(
        re.sub(r"[^A-Za-z0-9]+", "-", title), str(parts["weights_sha256"]),
        np.array([row["quality"] for row in scored]),
    )  # fmt: skip
    calibration = Calibration(
        id="", model=title, made_with=parts, scale=scale, seed=seed, version=__version__,
        thresholds=tuple(choose(kind, target, fmr, *halves, seed=seed) for kind, target in targets),
        counts={
            "scored_photos": len(scored), "left_out": len(scored) - len(known.rows),
            "choosing_people": halves[0].people, "choosing_faces": len(halves[0].quality),
            "other_people": halves[1].people, "other_faces": len(halves[1].quality),
        },
        source={
            "run": str(folder),
            **({"pairs": str(pairs)} if pairs else {"identity": rule.title}),
            **({"embeddings": str(embeddings)} if embeddings else {}),
        },
    ).named()  # fmt: skip
    write_calibration(calibration, output)
    return calibration


def _refuse_few_people(run: RunInfo, known: Labelled) -> None:
    people = len(np.unique(known.identity))
    if people < 2:
        raise CalibrationError(
            f"calibration needs at least two people, {run.folder} has {people}: give `identity` to "
            "tell people apart by another folder of their paths, or by a table"
        )


def _check(targets: Sequence[tuple[str, float]], fmr: float) -> None:
    if not targets:
        raise SettingsError("give a target: `target_fnmr` or `target_discard`")
    if len(set(targets)) < len(targets):
        raise SettingsError("a target is given twice")
    for name, value in [("fmr", fmr), *((f"target-{kind}", target) for kind, target in targets)]:
        check_target(value, name)


def _nobody(folder: Path, scored: Rows, file: Path | None) -> str:
    if not scored:
        return f"{folder} has no scored photos"
    if file:
        return (
            f"{file} has no scored photo of {folder}: write paths as in the results, e.g. "
            f"{scored[0]['path']}"
        )
    return f"no scored photo of {folder} has an identity; give `identity` FILE.csv, or `pairs` FILE"


def _by_identity(scored: Rows, tell: Listener) -> Labelled:
    """Return the photos with exactly one identity."""
    known = [row for row in scored if row["identity"] is not None]
    rows = [row for row in known if not row["shared"]]
    if shared := [row["path"] for row in known if row["shared"]]:
        why = f"left out: the same photo (sha256) has several identities, e.g. {shared[0]}"
        _tell_lost(tell, len(shared), why)
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


def _renumbered(pairs: PairList, kept: Bools) -> PairList:
    """Return the pairs of two kept samples, with indices into the kept samples."""
    inside = kept[pairs.first] & kept[pairs.second] & (pairs.first != pairs.second)
    place = np.cumsum(kept) - 1
    return PairList(place[pairs.first[inside]], place[pairs.second[inside]], pairs.mated[inside])


def _read(file: Path, run: RunInfo, rows: Rows) -> Vectors:
    """Return the (N, D) embeddings in a file, NaN rows for none."""
    found, match = read_embeddings(file).match([row["path"] for row in rows])
    if not (match.index >= 0).any():
        raise CalibrationError(f"{file} has no embedding of a photo of {run.folder}")
    return found


def _embed(
    run: RunInfo, rows: Rows, needed: bool, tell: Listener, *, device: str, model: str | None,
    fetch: bool,
) -> Vectors | None:  # fmt: skip
    """Return the (N, D) embeddings of the run's crops, NaN rows for none.

    None if no crop has one and none is needed.
    """
    if run.task != "score" and not any(row["crop"] for row in rows):
        if needed:
            raise RunError(
                f"{run.folder} has no crops to embed: give `embeddings` FILE, or make the run "
                "without --no-crops"
            )
        return None
    embedder = model_of(run, model).load()
    tell(Message(f"Embedding {counted(len(rows), 'crop')}"))
    vectors = []
    with counting(tell, len(rows), "crop"):
        crops = kept_crops(RunCrops(run, cut=False, fetch=fetch), rows)
        for vector in embed_crops(crops, embedder, device=device):
            vectors.append(vector)
            tell(Advanced(1))
    found = np.array(vectors)
    if np.isnan(found).any(axis=1).all():
        if not needed:
            return None
        raise RunError(f"the crops of {run.folder} no longer exist: give `embeddings` FILE")
    return found


def kept_crops(crops: RunCrops, rows: Rows) -> Iterator[Pixels | None]:
    """Yield each face's crop, (S, S, 3) uint8 RGB; None if it no longer exists."""
    for row in rows:
        try:
            yield crops.crop({**row, "face": 0})
        except PhotoError:
            yield None


def _tell_lost(tell: Listener, number: int, why: str) -> None:
    if number:
        tell(Message(f"{counted(number, 'photo')} {why}"))


@dataclass(frozen=True)
class Faces:
    """Faces of some people with (N,) finite qualities and (N,) identities 0, 1, ...

    Attributes:
        comparisons: None if all are mated or all are non-mated.
        all_compared: whether every face was compared with every other one.
    """

    quality: Floats
    identity: Codes
    comparisons: Comparisons | None = None
    all_compared: bool = False

    @property
    def people(self) -> int:
        """Number of people."""
        return int(self.identity.max(initial=-1)) + 1

    def non_mated(self, weights: Codes) -> Ints:
        """Return (B,) numbers of non-mated comparisons in replicates with (B, I) weights."""
        if self.all_compared:
            drawn = weights.astype(np.int64) * np.bincount(self.identity, minlength=self.people)
            return np.asarray((drawn.sum(axis=1) ** 2 - (drawn**2).sum(axis=1)) // 2)
        assert self.comparisons is not None
        return curves.non_mated_totals(self.comparisons.non_mated.identity_pairs, weights)


def split_people(identity: Ints, seed: int) -> Bools:
    """Return a mask of the faces of a random half of the people: those the threshold is fitted on.

    People with similar numbers of faces are paired, and one of each pair is drawn, so that both
    halves have about as many faces and mated comparisons.
    """
    codes = identity_codes(identity)
    sizes = np.bincount(codes)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(sizes)), -sizes))
    second = rng.integers(0, 2, -(-len(sizes) // 2))
    chosen = np.zeros(len(sizes), np.bool_)
    places = np.minimum(2 * np.arange(len(second)) + second, len(sizes) - 1)
    chosen[order[places]] = True
    return np.asarray(chosen[codes])


def faces_of(
    quality: Floats, identity: Ints, chosen: Bools, embeddings: Vectors | None = None,
    pairs: PairList | None = None, fmr: float = 1e-3,
) -> Faces:  # fmt: skip
    """Return a subset of the faces with the comparisons among them.

    Args:
        quality, identity: (N,) qualities and identities of all faces.
        chosen: (N,) mask of the subset; it has all faces of a person, or none.
        embeddings: (N, D) embeddings of all faces without NaN; None for no comparisons.
        pairs: pairs to compare, indices into all faces; None to compare all with all.
        fmr: false match rate of the threshold; decides how many comparisons are kept.
    """
    quality, codes = quality[chosen], identity_codes(identity[chosen])
    if embeddings is None:
        return Faces(quality, codes)
    vectors = embeddings[chosen]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if pairs is None:
        others = (len(codes) ** 2 - int((np.bincount(codes).astype(np.int64) ** 2).sum())) // 2
        # without pairs of identities, which `Faces.non_mated` has in closed form
        collector = NonMatedCollector(NonMatedCollector.enough(others, fmr))
        blocks = _all_compared(vectors, codes)
        both_kinds = 0 < codes.max(initial=0) < len(codes) - 1
    else:
        listed = _renumbered(pairs, chosen)
        collector = NonMatedCollector(identity=codes)
        blocks = _listed_compared(vectors, listed)
        both_kinds = listed.mated.any() and not listed.mated.all()
    if not both_kinds:
        return Faces(quality, codes)
    return Faces(quality, codes, Comparisons.streamed(blocks, collector, codes), pairs is None)


def _all_compared(vectors: Vectors, codes: Codes) -> Iterator[Block]:
    for rows in curves.slices(len(codes), len(codes), BLOCK_VALUES):
        similarity = vectors[rows] @ vectors[rows.start :].T
        # the upper triangle: each pair once
        one, two = np.nonzero(np.triu(np.ones(similarity.shape, np.bool_), 1))
        values, one, two = similarity[one, two], one + rows.start, two + rows.start
        yield values, codes[one] == codes[two], one, two


def _listed_compared(vectors: Vectors, pairs: PairList) -> Iterator[Block]:
    for part in curves.slices(len(pairs.first), vectors.shape[1], BLOCK_VALUES):
        first, second = pairs.first[part], pairs.second[part]
        similarity = np.einsum("pd,pd->p", vectors[first], vectors[second])
        yield similarity, pairs.mated[part], first, second


def quality_for_fnmr(faces: Faces, target: float, similarity: Floats, weights: Codes) -> Floats:
    """Return (B,) smallest quality thresholds with an FNMR of at most the target.

    NaN where none reaches the target; the lowest quality where the FNMR is within it without
    discarding. The faces have comparisons. `similarity` are (B,) similarity thresholds, `weights`
    are (B, I) weights of the people in each replicate.
    """
    comparisons = faces.comparisons
    assert comparisons is not None
    quality = curves.pair_quality(faces.quality, comparisons.first, comparisons.second)
    order, starts = curves.groups(quality)
    levels = quality[order][starts]
    person = faces.identity[comparisons.first[order]]
    ordered = comparisons.similarity[order]
    result = np.full(len(weights), np.nan)
    for part in curves.slices(len(weights), len(order), curves.CHUNK_VALUES):
        counts = weights[part][:, person].astype(np.float64)
        wrong = counts * ~(ordered > similarity[part, None])
        counts, wrong = (np.add.reduceat(values, starts, axis=1) for values in (counts, wrong))
        left, errors = (np.cumsum(n[:, ::-1], axis=1)[:, ::-1] for n in (counts, wrong))
        there = counts > 0  # skip levels without a resampled face
        reached = there & (errors / np.maximum(left, 1) <= target)
        reached &= ~np.isnan(similarity[part, None])
        first = np.argmax(reached, axis=1)
        found = np.where(first == np.argmax(there, axis=1), faces.quality.min(), levels[first])
        result[part] = np.where(reached.any(axis=1), found, np.nan)
    return result


def quality_for_discard(faces: Faces, target: float, weights: Codes) -> Floats:
    """Return (B,) largest quality thresholds that discard at most a share of the faces.

    `weights` are (B, I) weights of the people in each replicate.
    """
    order, starts = curves.groups(faces.quality)
    levels = faces.quality[order][starts]
    person = faces.identity[order]
    result = np.full(len(weights), np.nan)
    for part in curves.slices(len(weights), len(order), curves.CHUNK_VALUES):
        counts = np.add.reduceat(weights[part][:, person].astype(np.float64), starts, axis=1)
        before = np.cumsum(counts, axis=1) - counts
        # skip levels without a resampled face
        within = (before <= target * counts.sum(axis=1, keepdims=True)) & (counts > 0)
        last = within.shape[1] - 1 - np.argmax(within[:, ::-1], axis=1)
        result[part] = levels[last]
    return result


def choose(
    kind: str, target: float, fmr: float, choosing: Faces, others: Faces, *, seed: int = 0,
    replicates: int = REPLICATES,
) -> Threshold:  # fmt: skip
    """Return the threshold for a target, with its effect on held-out people.

    CalibrationError if no threshold reaches the FNMR, or there are too few errors to estimate it.

    Args:
        kind, target: "fnmr" and a rate, or "discard" and a share, in (0, 1).
        fmr: false match rate of the similarity threshold.
        choosing, others: faces that the threshold is fitted on, and those of the held-out people.
        seed, replicates: random seed and number of the bootstrap replicates.
    """
    weights = curves.draw_identities(others.people, replicates, seed)
    similarity = _similarity(choosing, fmr, _once(choosing))[0]
    if kind == "fnmr":
        for faces in (choosing, others):
            _refuse_without(faces, fmr)
        (quality,) = quality_for_fnmr(choosing, target, np.array([similarity]), _once(choosing))
        if np.isnan(quality):
            raise CalibrationError(
                f"no quality threshold reaches an FNMR of {target:g} at FMR {fmr:g}: even the "
                "best faces have more errors"
            )
        drawn = quality_for_fnmr(others, target, _similarity(others, fmr, weights), weights)
    else:
        (quality,) = quality_for_discard(choosing, target, _once(choosing))
        drawn = quality_for_discard(others, target, weights)
    spread = curves.interval(drawn)
    # the fewest decimals that discard the same faces
    every = np.concatenate([choosing.quality, others.quality])
    below = every[every < quality].max(initial=-np.inf)
    quality = shortest_between(float(below), float(quality))
    threshold = Threshold(
        kind, target, quality, low=spread.low if spread else None,
        high=spread.high if spread else None,
        discard=_share(others.quality < quality, others.identity, weights),
        errors=_errors(others, quality, fmr, float(similarity), weights),
    )  # fmt: skip
    if kind == "fnmr":
        _refuse_few_errors(threshold)
    return threshold


def _once(faces: Faces) -> Codes:
    """Return (1, I) weights of the original data: 1 for everybody."""
    return np.ones((1, faces.people), np.int32)


def _refuse_without(faces: Faces, fmr: float) -> None:
    if faces.comparisons is None:
        raise CalibrationError(
            "calibration needs people with two photos and other people to compare with, in both "
            "halves of the people: add photos"
        )
    total = faces.comparisons.non_mated.total
    if fmr * total < ENOUGH_ERRORS:
        raise CalibrationError(
            f"calibration at FMR {fmr:g} needs at least {int(np.ceil(ENOUGH_ERRORS / fmr)):,} "
            f"non-mated comparisons in each half of the people, one half has {total:,}: add people "
            "or raise `fmr`"
        )


def _refuse_few_errors(threshold: Threshold) -> None:
    assert threshold.errors is not None
    after = threshold.errors.after
    if after.count < ENOUGH_ERRORS:
        raise CalibrationError(
            f"calibration for {threshold.title} needs at least {ENOUGH_ERRORS} errors among the "
            f"held-out people, there are {after.count} in {after.total:,} mated comparisons: add "
            "photos or raise `target_fnmr`"
        )


def _similarity(faces: Faces, fmr: float, weights: Codes) -> Floats:
    """Return (B,) smallest similarity thresholds within an FMR; NaN without comparisons."""
    if faces.comparisons is None:
        return np.full(len(weights), np.nan)
    others = faces.comparisons.non_mated
    totals = faces.non_mated(weights)
    return curves.fmr_thresholds(others, faces.identity, [fmr], weights, totals)[:, 0]


def _errors(
    faces: Faces, quality: float, fmr: float, similarity: float, weights: Codes
) -> Errors | None:
    comparisons = faces.comparisons
    if comparisons is None or np.isnan(similarity):
        return None
    others = comparisons.non_mated
    count = others.at_threshold(similarity).false_matches
    if count > len(others.similarity):  # the FMR is far from its target: not all were kept
        false_matches = Rate(count, others.total)
    else:
        first, second = (faces.identity[ends[:count]] for ends in (others.first, others.second))
        accepted = np.array([np.dot(row[first].astype(np.int64), row[second]) for row in weights])
        false_matches = _rate(count, others.total, accepted, faces.non_mated(weights))
    person = faces.identity[comparisons.first]
    wrong = rejected(comparisons.similarity, similarity)
    kept = curves.pair_quality(faces.quality, comparisons.first, comparisons.second) >= quality
    before, after = _share(wrong, person, weights), _share(wrong[kept], person[kept], weights)
    return Errors(fmr, similarity, false_matches, before, after)


def _share(marked: Bools, person: Codes, weights: Codes) -> Rate:
    """Return the share of marked items, each of a person, with an interval."""
    people = weights.shape[1]
    one, every = (np.bincount(who, minlength=people) for who in (person[marked], person))
    return _rate(int(one.sum()), len(person), weights @ one, weights @ every)


def _rate(count: int, total: int, counts: Ints, totals: Ints) -> Rate:
    """Return a rate with an interval from its (B,) counts and totals in the replicates."""
    found = curves.interval(np.where(totals > 0, counts / np.maximum(totals, 1), np.nan))
    return Rate(count, total, found.low, found.high) if found else Rate(count, total)
