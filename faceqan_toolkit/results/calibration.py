"""A calibration: quality thresholds and a scale, and which scores they hold for. No torch."""

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

from faceqan_toolkit.differences import differences
from faceqan_toolkit.errors import CalibrationError, SettingsError
from faceqan_toolkit.files import parse_json, read_text, write_text
from faceqan_toolkit.quality.scale import Scale, scale_from
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.rounding import exact_text
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.wording import counted, reason_of

FORMAT = 1
"""Of the file."""

MUST_MATCH = (
    "algorithm", "weights_sha256", "channels", "pixel_mean", "pixel_std", "norm_eps",
    "method", "preset", "eps", "eps_mode", "steps", "copies", "exponent", "clamp", "precision",
    "detector", "max_side", "one_based", "landmarks", "antialias",
)  # fmt: skip
"""Parts of a run's identity that move all scores, or the crops they are of. The others choose
which faces there are, or draw other noise."""

ENOUGH_ERRORS = 30
"""With so many errors the true rate lies within 30 % of the found one with 90 % confidence, if the
errors are independent of each other (Doddington's rule of 30)."""


@dataclass(frozen=True)
class Rate:
    """A share that was found, and how far it can be trusted.

    Attributes:
        count: how many.
        total: of how many.
        low, high: its 95 % interval over resampled people; None where there is none.
    """

    count: int
    total: int
    low: float | None = None
    high: float | None = None

    @property
    def value(self) -> float | None:
        """The share, in [0, 1]; None of nothing."""
        return self.count / self.total if self.total else None


@dataclass(frozen=True)
class Errors:
    """Recognition errors of the people that did not choose the threshold.

    Attributes:
        fmr: the false match rate asked for.
        similarity: comparisons above it are accepted; from the people that chose.
        false_matches: of all non-mated comparisons.
        before: false non-matches of all mated comparisons.
        after: of those whose two faces reach the quality threshold.
    """

    fmr: float
    similarity: float
    false_matches: Rate
    before: Rate
    after: Rate

    @property
    def enough(self) -> bool:
        """Whether there are errors enough to tell the rates."""
        expected = self.fmr * self.false_matches.total
        return self.after.count >= ENOUGH_ERRORS and expected >= ENOUGH_ERRORS


@dataclass(frozen=True)
class Threshold:
    """A quality threshold; faces below it are discarded.

    Attributes:
        kind: "fnmr" for a false non-match rate, "discard" for a share of the faces.
        target: that rate or share.
        quality: the threshold.
        low, high: where the other people would have put it, a 95 % interval; None without one.
        discard: which share of the other people's faces it discards.
        errors: what it does to their recognition errors; None if those were not counted.
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
        """What it is for, in words."""
        if self.kind == "discard":
            return f"discarding {100 * self.target:g} %"
        at = f" at FMR {exact_text(self.errors.fmr)}" if self.errors else ""
        return f"FNMR {exact_text(self.target)}{at}"

    @property
    def option(self) -> str:
        """How `filter` is asked for it."""
        return f"--target-{self.kind} {exact_text(self.target)}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as the file holds it; rates that errors are too few for stand as null."""
        found = asdict(self)
        found["discard"]["value"] = self.discard.value
        if self.errors is not None:
            found["errors"]["enough"] = self.errors.enough
            for name in ("false_matches", "before", "after"):
                rate: Rate = getattr(self.errors, name)
                found["errors"][name]["value"] = rate.value if self.errors.enough else None
                if not self.errors.enough:
                    found["errors"][name] |= {"low": None, "high": None}
        return found


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found.

    Attributes:
        id: names this very content; "" until it is known.
        model: name of the recognition model.
        made_with: the parts of the run's identity in `MUST_MATCH`.
        scale: from 0 to 100.
        thresholds: at least one.
        counts: faces and people that chose, and that did not; how many were left out.
        seed: of the split and the intervals.
        source: run folder, files of pairs and embeddings, for people.
        version: of this package.
    """

    id: str
    model: str
    made_with: Mapping[str, Any]
    scale: Scale
    thresholds: tuple[Threshold, ...]
    counts: Mapping[str, int]
    seed: int
    source: Mapping[str, str]
    version: str

    def named(self) -> Calibration:
        """Return it with the id its content has."""
        content = {**self.as_dict(), "id": "", "source": {}}
        text = json.dumps(content, sort_keys=True)
        return replace(self, id=hashlib.sha256(text.encode()).hexdigest()[:12])

    def as_dict(self) -> dict[str, Any]:
        """Return it as the file holds it."""
        return {
            "tool": "faceqan-toolkit",
            "format": FORMAT,
            "version": self.version,
            "id": self.id,
            "model": self.model,
            "made_with": dict(self.made_with),
            "scale": self.scale.as_dict(),
            "thresholds": [threshold.as_dict() for threshold in self.thresholds],
            "counts": dict(self.counts),
            "seed": self.seed,
            "source": dict(self.source),
        }

    def for_run(self) -> dict[str, Any]:
        """Return what `run.json` says of it."""
        return {
            "id": self.id,
            "thresholds": [
                {"title": item.title, "quality": item.quality} for item in self.thresholds
            ],
        }

    def check(self, identity: Mapping[str, Any], what: str) -> None:
        """Do nothing if it was made for such scores.

        Args:
            identity: of a run, see `Settings.identity`.
            what: to call the run.

        Raises:
            CalibrationError: it was made for others; one line says what differs.
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
        """Return the threshold for a target; without one the only threshold there is.

        Raises:
            CalibrationError: there is none for this target, or several without one.
            SettingsError: two targets.
        """
        if fnmr is not None and discard is not None:
            raise SettingsError("give --target-fnmr or --target-discard, not both")
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
                + ("say which" if target is None else f"none for --target-{kind} {target}")
            )
        return found[0]


def made_with(run: RunInfo) -> dict[str, Any]:
    """Return what must match if a calibration from this run is used.

    Raises:
        CalibrationError: the run has no scores.
    """
    identity = run.content.get("identity") or {}
    if not Ranking(run).scored or not identity:
        raise CalibrationError(run.no_scores)
    return {name: identity.get(name) for name in MUST_MATCH}


def fit_scale(model: str, weights_sha256: str, quality: NDArray[np.float64]) -> Scale:
    """Return a scale on which the median of (N,) qualities has 50, their 84th percentile 84.

    Its id is the same if and only if model and constants are.

    Raises:
        CalibrationError: the qualities are all alike.
    """
    # adding 0 makes -0 and 0 one id
    median, upper = (float(value) + 0.0 for value in np.percentile(quality, [50, 84]))
    text = json.dumps([weights_sha256, median, upper])
    name = f"{model}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    try:
        return Scale.from_quantiles(name, median, upper)
    except SettingsError as error:
        raise CalibrationError("the run's scores are all alike: they make no scale") from error


def write_calibration(calibration: Calibration, target: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    content = json.dumps(calibration.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(target, content + "\n")


def is_calibration(head: bytes) -> bool:
    """Tell by a file's first bytes whether `write_calibration` wrote it."""
    return head.startswith(b'{\n  "tool": "faceqan-toolkit"') and b'"made_with": {' in head


def read_calibration(file: Path) -> Calibration:
    """Return what a file says.

    Raises:
        CalibrationError: it cannot be read, is no calibration or of another version, or was
            changed by hand.
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
            id=str(content["id"]),
            model=str(content["model"]),
            made_with=dict(content["made_with"]),
            scale=scale,
            thresholds=tuple(_threshold(item) for item in content["thresholds"]),
            counts=dict(content["counts"]),
            seed=int(content["seed"]),
            source=dict(content["source"]),
            version=str(content["version"]),
        )
        id_of_content = found.named().id
    except OSError as error:
        raise CalibrationError(f"cannot read {file}: {reason_of(error)}") from error
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        SettingsError,
    ) as error:
        raise CalibrationError(
            f"{file} is no calibration; give the file that calibrate wrote"
        ) from error
    if id_of_content != found.id:
        raise CalibrationError(f"{file} is not as calibrate wrote it; run calibrate again")
    return found


def below_thresholds(run: RunInfo) -> dict[str, str]:
    """Return, for people, how many faces lie below each threshold that a run knows."""
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
    errors = content["errors"]
    return Threshold(
        kind=str(content["kind"]),
        target=float(content["target"]),
        quality=float(content["quality"]),
        low=content["low"],
        high=content["high"],
        discard=_rate(content["discard"]),
        errors=None
        if errors is None
        else Errors(
            float(errors["fmr"]),
            float(errors["similarity"]),
            *(_rate(errors[name]) for name in ("false_matches", "before", "after")),
        ),
    )


def _rate(content: Mapping[str, Any]) -> Rate:
    return Rate(int(content["count"]), int(content["total"]), content["low"], content["high"])
