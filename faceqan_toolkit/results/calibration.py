"""Calibrations: quality thresholds and a 0..100 scale for scores of given settings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import CalibrationError, SettingsError
from faceqan_toolkit.files import parse_json, read_text, write_text
from faceqan_toolkit.quality.scale import Scale, scale_from
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo, differences
from faceqan_toolkit.text import counted, exact_text, reason_of

FORMAT = 1
"""Version of the file format."""

MUST_MATCH = (
    "algorithm", "weights_sha256", "channels", "pixel_mean", "pixel_std", "norm_eps",
    "method", "preset", "eps", "eps_mode", "steps", "copies", "exponent", "clamp", "precision",
    "detector", "max_side", "one_based", "landmarks", "antialias",
)  # fmt: skip
"""Settings that change all scores, or the crops that are scored. The others select faces or draw
other noise, so a calibration holds without them."""

ENOUGH_ERRORS = 30
"""With 30 independent errors the true rate is within 30 % of the measured one with 90 % confidence
(Doddington's rule of 30)."""


@dataclass(frozen=True)
class Rate:
    """A rate: `count` errors or discards among `total` comparisons or faces.

    `low` and `high` are its 95 % bootstrap interval, resampled by identity; None if not computed.
    """

    count: int
    total: int
    low: float | None = None
    high: float | None = None

    @property
    def value(self) -> float | None:
        """count / total, in [0, 1]; None if the total is 0."""
        return self.count / self.total if self.total else None


@dataclass(frozen=True)
class Errors:
    """Recognition errors of the held-out identities.

    Attributes:
        fmr: target false match rate.
        similarity: threshold fitted on the other identities; comparisons above it are accepted.
        false_matches: rate among all non-mated comparisons.
        before: false non-match rate of all mated comparisons.
        after: that of mated comparisons whose two faces reach the quality threshold.
    """

    fmr: float
    similarity: float
    false_matches: Rate
    before: Rate
    after: Rate

    @property
    def enough(self) -> bool:
        """Whether there are at least `ENOUGH_ERRORS` errors behind the rates."""
        expected = self.fmr * self.false_matches.total
        return self.after.count >= ENOUGH_ERRORS and expected >= ENOUGH_ERRORS


@dataclass(frozen=True)
class Threshold:
    """A quality threshold; faces below it are discarded.

    Attributes:
        kind: "fnmr" for a target false non-match rate, "discard" for a target share of faces.
        target: target rate or share.
        quality: the threshold.
        low, high: 95 % interval of the threshold from the held-out identities; None without one.
        discard: share of the held-out identities' faces that it discards.
        errors: recognition errors of the held-out identities; None if not measured.
    """

    kind: str
    target: float
    quality: float
    low: float | None
    high: float | None
    discard: Rate
    errors: Errors | None = None

    @property
    def title(self) -> str:
        """The target, for people."""
        if self.kind == "discard":
            return f"discarding {100 * self.target:g} %"
        at = f" at FMR {exact_text(self.errors.fmr)}" if self.errors else ""
        return f"FNMR {exact_text(self.target)}{at}"

    @property
    def option(self) -> str:
        """The options of `filter` that choose it."""
        return f"`target_{self.kind}` {exact_text(self.target)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON of the file; rates with too few errors are null."""
        found = asdict(self)
        found["discard"]["value"] = self.discard.value
        if self.errors is not None:
            enough = found["errors"]["enough"] = self.errors.enough
            for name in ("false_matches", "before", "after"):
                found["errors"][name]["value"] = getattr(self.errors, name).value
                if not enough:
                    found["errors"][name] |= dict.fromkeys(("low", "high", "value"))
        return found


@dataclass(frozen=True)
class Calibration:
    """The result of `calibrate`.

    Attributes:
        version: version of this package.
        id: hash of the content; "" before `named`.
        model: name of the recognition model.
        made_with: the run's settings in `MUST_MATCH`.
        counts: numbers of faces and identities in either half, and of those left out.
        seed: random seed of the split and of the bootstrap.
        source: run folder and files of pairs and embeddings, for people.
    """

    version: str
    id: str
    model: str
    made_with: Mapping[str, Any]
    scale: Scale
    thresholds: tuple[Threshold, ...]
    counts: Mapping[str, int]
    seed: int
    source: Mapping[str, str]

    def named(self) -> Calibration:
        """Return the calibration with the id of its content."""
        content = {**self.as_dict(), "id": "", "source": {}}
        text = json.dumps(content, sort_keys=True)
        return replace(self, id=hashlib.sha256(text.encode()).hexdigest()[:12])

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON of the file."""
        thresholds = [threshold.as_dict() for threshold in self.thresholds]
        content = {**vars(self), "scale": self.scale.as_dict(), "thresholds": thresholds}
        return {"tool": "faceqan-toolkit", "format": FORMAT, **content}

    def for_run(self) -> dict[str, Any]:
        """Return the entry for `run.json`."""
        thresholds = [{"title": item.title, "quality": item.quality} for item in self.thresholds]
        return {"id": self.id, "thresholds": thresholds}

    def check(self, identity: Mapping[str, Any], what: str) -> None:
        """Raise CalibrationError if it does not hold for the scores of a run called `what`.

        The message lists the settings that differ from the run's `Settings.identity`.
        """
        own, other = (
            {name: parts.get(name) for name in MUST_MATCH} for parts in (self.made_with, identity)
        )
        if own != other:
            differing = differences(own, other, "in the calibration", f"in {what}")
            raise CalibrationError(
                f"the calibration {self.id} was made for other scores: {'; '.join(differing)}"
            )

    def threshold(self, fnmr: float | None = None, discard: float | None = None) -> Threshold:
        """Return the threshold for a target; without a target the only threshold.

        Raises:
            CalibrationError: there is no such threshold, or no target and several thresholds.
            SettingsError: two targets are given.
        """
        if fnmr is not None and discard is not None:
            raise SettingsError("give `target_fnmr` or `target_discard`, not both")
        kind, target = ("fnmr", fnmr) if fnmr is not None else ("discard", discard)
        found = [
            item
            for item in self.thresholds
            if target is None or (item.kind == kind and math.isclose(item.target, target))
        ]
        if len(found) != 1:
            options = ", ".join(item.option for item in self.thresholds)
            raise CalibrationError(
                f"the calibration {self.id} has thresholds for {options}; "
                + ("say which" if target is None else f"none for `target_{kind}` {target}")
            )
        return found[0]


def made_with(run: RunInfo) -> dict[str, Any]:
    """Return a run's settings in `MUST_MATCH`; raise CalibrationError if it has no scores."""
    identity = run.content.get("identity") or {}
    if not Ranking(run).scored or not identity:
        raise CalibrationError(run.no_scores)
    return {name: identity.get(name) for name in MUST_MATCH}


def fit_scale(model: str, weights_sha256: str, quality: NDArray[np.float64]) -> Scale:
    """Return the scale that maps the median of (N,) qualities to 50, their 84th percentile to 84.

    CalibrationError if the qualities are all equal.
    """
    # adding 0.0 turns -0.0 into 0.0, so that both give one id
    median, upper = (float(value) + 0.0 for value in np.percentile(quality, [50, 84]))
    text = json.dumps([weights_sha256, median, upper])
    name = f"{model}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    try:
        return Scale.from_quantiles(name, median, upper)
    except SettingsError as error:
        raise CalibrationError("the run's scores are all equal: no scale fits them") from error


def write_calibration(calibration: Calibration, target: Path) -> None:
    """Write a calibration file atomically; raise RunError if it cannot be written."""
    content = json.dumps(calibration.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(target, content + "\n")


def is_calibration(head: bytes) -> bool:
    """Tell by its first bytes whether a file is a calibration."""
    return head.startswith(b'{\n  "tool": "faceqan-toolkit"') and b'"made_with": {' in head


_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RecursionError, SettingsError)


def read_calibration(file: Path) -> Calibration:
    """Return the calibration in a file.

    CalibrationError if it cannot be read, is of another version, edited, or no calibration.
    """
    try:
        content = parse_json(read_text(file))
        if content.get("format", FORMAT) != FORMAT:
            raise CalibrationError(
                f"{file} is of another version of faceqan-toolkit; run calibrate again"
            )
        scale = scale_from(content["scale"])
        if scale is None:
            raise CalibrationError(f"{file} is no calibration: it has no scale")
        found = Calibration(
            version=str(content["version"]),
            id=str(content["id"]),
            model=str(content["model"]),
            made_with=dict(content["made_with"]),
            scale=scale,
            thresholds=tuple(map(_threshold, content["thresholds"])),
            counts=dict(content["counts"]),
            seed=int(content["seed"]),
            source=dict(content["source"]),
        )
        id_of_content = found.named().id
    except OSError as error:
        raise CalibrationError(f"cannot read {file}: {reason_of(error)}") from error
    except _MALFORMED as error:
        raise CalibrationError(
            f"{file} is no calibration; give the file that calibrate wrote"
        ) from error
    if id_of_content != found.id:
        raise CalibrationError(f"{file} is not as calibrate wrote it; run calibrate again")
    return found


def below_thresholds(run: RunInfo) -> dict[str, str]:
    """Return the number of faces below each threshold of a run's calibration, as text by title."""
    calibration = run.content.get("calibration")
    if not calibration:
        return {}
    ranking = Ranking(run)
    found = {}
    for item in calibration["thresholds"]:
        below, faces = ranking.below(item["quality"])
        quality = exact_text(item["quality"], 4)
        title = f"Below the threshold for {item['title']} (quality {quality})"
        found[title] = f"{below:,} of {counted(faces, 'face')}"
    return found


def _threshold(content: Mapping[str, Any]) -> Threshold:
    errors = content["errors"] and Errors(
        float(content["errors"]["fmr"]),
        float(content["errors"]["similarity"]),
        *(_rate(content["errors"][name]) for name in ("false_matches", "before", "after")),
    )
    target, quality = float(content["target"]), float(content["quality"])
    return Threshold(
        str(content["kind"]), target, quality, content["low"], content["high"],
        _rate(content["discard"]), errors,
    )  # fmt: skip


def _rate(content: Mapping[str, Any]) -> Rate:
    return Rate(int(content["count"]), int(content["total"]), content["low"], content["high"])
