"""The run folder: `run.json`, its writer and lock, and differences between runs' settings."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.files import check_text, lock, parse_json, read_text, refuse_links, write_text
from faceqan_toolkit.quality.scale import Scale, builtin_scale, scale_from
from faceqan_toolkit.runs.ledger import Ledger, as_table
from faceqan_toolkit.settings import (
    CROP_SIZES,
    TASKS,
    Settings,
    fingerprint_of,
    setting_field,
    setting_names,
)
from faceqan_toolkit.text import exact_text, printable, reason_of, short_checksum
from faceqan_toolkit.types import Record

FLUSH_SECONDS = 30.0
FLUSH_RECORDS = 20_000

PACKAGES = ("torch", "torchvision", "facenet-pytorch", "opencv-python-headless", "scikit-image",
            "numpy", "pillow", "pyarrow", "duckdb", "openvino")  # fmt: skip


@dataclass(frozen=True)
class RunInfo:
    """A run: its folder, and the content of its `run.json`."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def task(self) -> str:
        """The task that made its records."""
        return str(self.content["settings"]["task"])

    @property
    def ledger(self) -> Ledger:
        """Its records."""
        return Ledger(self.folder / "records")

    @property
    def no_scores(self) -> str:
        """Message for commands that need scores, if its task makes none."""
        return (
            f"{self.folder} has no scores; it was made by {self.task}. Scores come from "
            "align-and-score, or from score on its crops"
        )

    def check_threshold(self, quality: float | None) -> None:
        """Raise SettingsError if no score of the run can reach a quality threshold."""
        method = self.content["settings"].get("method", "faceqan")
        if quality is not None and quality > 1 and method == "faceqan":
            raise SettingsError(
                f"no quality reaches {exact_text(quality)}: it is 1 at most; the numbers up "
                "to 100 are in the columns quality_100 and percentile"
            )

    @property
    def settings(self) -> Settings:
        """The settings it was made with; RunError for settings of another version."""
        try:
            return Settings.from_dict(self.content["settings"])
        except SettingsError as error:
            raise RunError(
                f"{self.folder / 'run.json'} has settings of another version: {error}; "
                "use another run folder"
            ) from error

    @property
    def scale(self) -> Scale | None:
        """The scale from 0 to 100 of its scores, None without one; RunError if it is malformed."""
        try:
            return scale_from(self.content.get("scale"))
        except SettingsError as error:
            raise RunError(f"{self.folder / 'run.json'}: {error}") from error


def read_run(folder: Path) -> RunInfo:
    """Return the run in a folder.

    RunError if the folder is not a run folder, its name is not valid text, or its `run.json` cannot
    be read.
    """
    check_text(folder)
    try:
        return RunInfo(folder, parse_run_json(read_text(folder / "run.json")))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            f"{folder} is not a run folder: it has no run.json; give the folder behind -o of a run"
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / 'run.json'} cannot be read: {error}") from error


def crop_file(run_folder: Path, name: str) -> Path | None:
    """Return the file of a record's `crop`; None if it is outside the run folder's `crops`.

    Run folders are untrusted: a record may name any file, directly or through a link.
    """
    if not name or "\0" in name:
        return None
    file, crops = run_folder / name, Path(os.path.realpath(run_folder)) / "crops"
    return file if Path(os.path.realpath(file)).is_relative_to(crops) else None


class RunWriter:
    """A run folder opened for writing; use it in a `with` statement.

    Args:
        folder: the run folder, created if missing.
        settings: if the run exists, they must have its identity.
        weights_sha256: `FoundModel.weights` of the recognition model, "" without one.
        model: further properties of the model for `run.json`.
        shard: the part of the photos that the run is for, for instance "2/8"; None means all.
        merged: entry of `run.json` on the runs that this one is merged from.
        identity: identity of those runs, maybe of another version; None means the settings'.

    Attributes:
        ledger: its records.
        invocations: summary of each command on the run.
        repaired: messages on damage that was found and repaired.

    Raises:
        RunError: the run has other settings, another process writes to it, or the folder holds
            other files.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        weights_sha256: str,
        model: Mapping[str, Any] | None = None,
        *,
        shard: str | None = None,
        merged: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.settings = folder, settings
        self.model = dict(model or {})
        self.shard, self.merged = shard, merged
        self.identity = dict(identity or settings.identity(weights_sha256))
        self.fingerprint = fingerprint_of(self.identity)
        self.scale = builtin_scale(settings, weights_sha256)
        self.calibration: dict[str, Any] | None = None
        self.invocations: list[dict[str, Any]] = []
        self.ledger = Ledger(folder / "records")
        self._waiting: list[Record] = []
        self._flushed = time.monotonic()
        check_text(folder)
        refuse_links(*(folder / name for name in (".lock", "records", "records/damaged", "crops")))
        fresh = not (folder / "run.json").exists()
        self._take_folder(fresh=fresh)
        try:
            if fresh:
                self.write_info({})  # the ledger is worth nothing without its settings
            else:
                self._continue()
            self.repaired = tuple(self.ledger.repair())
        except BaseException:
            self._lock.release()
            raise

    @property
    def info(self) -> RunInfo:
        """The run for its readers."""
        scale = self.scale and self.scale.as_dict()
        return RunInfo(self.folder, {"settings": self.settings.as_dict(), "scale": scale})

    @property
    def crops_folder(self) -> Path | None:
        """Folder of the aligned crops; None if they are not kept."""
        wanted = self.settings.keep_crops and "alignment" in self.settings.stages
        return self.folder / "crops" if wanted else None

    def use_calibration(self, content: Mapping[str, Any], scale: Scale | None) -> bool:
        """Take a calibration and, if the run has none, its scale; return whether that is new.

        RunError if the run has another scale.
        """
        if self.scale is not None and scale is not None and self.scale != scale:
            raise RunError(
                f"{self.folder} has the scale {self.scale.id}, the calibration {scale.id}; "
                "use another run folder"
            )
        before = (self.scale, self.calibration)
        self.scale, self.calibration = self.scale or scale, dict(content)
        return before != (self.scale, self.calibration)

    def append(self, records: list[Record]) -> None:
        """Add all records of an attempt at a photo, in place of earlier ones; may `flush`."""
        self._waiting += records
        overdue = time.monotonic() - self._flushed >= FLUSH_SECONDS
        if overdue or len(self._waiting) >= FLUSH_RECORDS:
            self.flush()

    def flush(self) -> None:
        """Write the added records as a new part of the ledger; RunError if that fails."""
        self._flushed = time.monotonic()
        if not self._waiting:
            return
        known = len(self.ledger.parts)
        try:
            self.ledger.write([as_table(self._waiting)])
        except OSError as error:
            raise RunError(
                f"cannot write to {self.ledger.folder}: {reason_of(error)}; parts written "
                "before are safe, the same command goes on from there"
            ) from error
        finally:
            # an interrupt may come before the part has its name, or right after
            if len(self.ledger.parts) > known:
                self._waiting = []

    def compact(self) -> None:
        """Join the ledger's parts if there are many; RunError if that fails, nothing is lost."""
        try:
            self.ledger.compact()
        except (OSError, pa.ArrowException) as error:
            self.ledger.refuse_damage()
            raise RunError(f"cannot join the parts in {self.ledger.folder}: {error}") from error

    def write_info(
        self, counts: Mapping[str, int], invocation: Mapping[str, Any] | None = None
    ) -> None:
        """Write `run.json`, with the number of rows by status and a summary of this command."""
        if invocation:
            self.invocations.append(dict(invocation))
        model = None
        if "quality" in self.settings.stages:
            weights, _, head = self.identity["weights_sha256"].partition("+")
            model = {"name": self.settings.model.name, **self.model, "sha256": weights}
            model |= {"head_sha256": head} if head else {}
        content = {
            "tool": "faceqan-toolkit",
            "fingerprint": self.fingerprint,
            "settings": self.settings.as_dict(),
            "identity": self.identity,
            "model": model,
            "scale": self.scale and self.scale.as_dict(),
            "calibration": self.calibration,
            "shard": self.shard,
            "merged": self.merged,
            "versions": versions(),
            "counts": dict(counts),
            "invocations": self.invocations,
        }
        write_text(self.folder / "run.json", json.dumps(content, indent=2) + "\n")

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush the records and release the lock."""
        try:
            self.flush()
        finally:
            self._lock.release()

    def _take_folder(self, *, fresh: bool) -> None:
        """Create and lock the folder; if it is fresh, refuse other files in it."""
        folder = self.folder
        try:
            entries = folder.iterdir() if fresh and folder.is_dir() else ()
            if any(one.name != ".lock" and not one.name.startswith(".spill-") for one in entries):
                raise RunError(
                    f"{folder} holds other files and is not a run folder; choose another"
                )
            (folder / "records").mkdir(parents=True, exist_ok=True)
            self._lock = lock(folder / ".lock", folder)
        except OSError as error:
            raise RunError(f"cannot use {folder} as a run folder: {reason_of(error)}") from error

    def _continue(self) -> None:
        """Check that the run has the same identity; take over its history."""
        info = read_run(self.folder)
        content = info.content
        calls, before = content.get("invocations", []), content.get("identity", {})
        same_task = before.get("task") == self.identity["task"]
        made = ""
        if content["settings"].get("refine") or any("refined" in call for call in calls):
            made = "with --refine, which is no longer supported"
        elif same_task and before.get("detection") != self.identity.get("detection"):
            made = "by another version, which finds other faces"
        if made:
            raise RunError(
                f"{self.folder} was made {made}: it can be ranked, filtered and reported, but not "
                "continued; use another run folder"
            )
        if before != self.identity:
            differing = differences(before, self.identity, "in the run", "now")
            raise RunError(
                f"{self.folder} was made with other settings, whose scores must not be mixed:\n"
                + "".join(f"  {line}\n" for line in differing)
                + "Use another run folder, or the same settings."
            )
        if content.get("shard") != self.shard:
            given, wanted = (
                f"shard {shard} of the photos" if shard else "all photos"
                for shard in (content.get("shard"), self.shard)
            )
            raise RunError(
                f"{self.folder} is for {given}, not for {wanted}; every shard has a run folder of "
                "its own"
            )
        self.invocations = list(calls)
        self.merged = self.merged or content.get("merged")
        if "scale" in content:  # its rows keep the scale they began with
            self.scale = info.scale
        self.calibration = content.get("calibration")


def versions() -> dict[str, str]:
    """Return the versions of this package and of `PACKAGES`; "missing" for some."""
    found = dict.fromkeys(("faceqan-toolkit", *PACKAGES), "missing")
    for package in found:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


_KINDS: Mapping[str, tuple[type, ...]] = {
    "str": (str,), "Path": (str,), "int": (int,), "float": (int, float), "bool": (bool,),
    "None": (type(None),),
}  # fmt: skip
_SETTINGS: Mapping[str, tuple[type, ...]] = {
    # None is stored for a setting that the detector or the preset decides
    name: sum((_KINDS[kind] for kind in str(setting_field(name).type).split(" | ")), (type(None),))
    for name in setting_names()
}
_LARGEST = 1e15


def parse_run_json(text: str) -> dict[str, Any]:
    """Return the content of a `run.json` from anybody: checked, and its texts printable.

    ValueError if it is not JSON, or an entry that readers of runs need is malformed.
    """
    try:
        content = _printable(parse_json(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(isinstance(content, dict), "it is not an object")
    _check_settings(content.get("settings"))
    for name in ("identity", "versions", "counts"):
        _check(isinstance(content.get(name, {}), dict), f"{name} is not an object")
    for name in ("model", "scale", "calibration", "merged"):  # not every run has one
        _check(isinstance(content.get(name), (dict, type(None))), f"{name} is not an object")
    if merged := content.get("merged"):
        _check(_is_number(merged.get("invocations")), "merged lacks the number of invocations")
    model = content.get("model") or {}
    for name in ("name", "sha256", "template"):
        _check(isinstance(model.get(name, ""), str), f"the model's {name} is not a text")
    _check(model.get("input_size", 112) in CROP_SIZES, "the model's input_size is not a crop size")
    calibration = content.get("calibration") or {}
    _check(not calibration or "thresholds" in calibration, "calibration has no thresholds")
    for item in _objects(calibration, "thresholds"):
        _check(isinstance(item.get("title"), str), "a threshold has no title")
        _check(_is_number(item.get("quality")), "a threshold has no quality")
    for item in _objects(content, "invocations"):
        for name in ("photos", "seconds"):
            _check(_is_number(item.get(name, 0)), f"an invocation's {name} is not a number")
    return dict(content)


def _check_settings(settings: Any) -> None:
    _check(isinstance(settings, dict), "it has no settings")
    _check(settings.get("task") in list(TASKS), "this version does not know its task")
    for name, value in settings.items():
        if kinds := _SETTINGS.get(name):
            right = isinstance(value, kinds) and (type(value) is not bool or bool in kinds)
            _check(right, f"setting {name} is {str(value)[:50]!r}")
        if isinstance(value, (int, float)):
            _check(abs(value) < 2**63 and math.isfinite(value), f"setting {name} is too large")
    _check(settings.get("crop_size", 112) in CROP_SIZES, "setting crop_size is not a crop size")


def _objects(content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = content.get(name, [])
    right = isinstance(found, list) and all(isinstance(item, dict) for item in found)
    _check(right, f"{name} is not a list of objects")
    return list(found)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST  # type: ignore[arg-type]


def _check(right: bool, problem: str) -> None:
    if not right:
        raise ValueError(problem)


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {printable(name): _printable(item) for name, item in value.items()}
    return value


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], where: str, elsewhere: str
) -> list[str]:
    """Return a text for each setting that differs between two identities (`Settings.identity`).

    Examples:
        >>> differences({"copies": 10, "seed": 0}, {"copies": 2, "seed": 0}, "in the run", "now")
        ['copies: 10 in the run, 2 now']
    """
    lines = [
        (name.replace("_", "-"), _shown(name, one), _shown(name, other))
        for name in {**one, **other}
        if name != "weights_sha256" and one.get(name) != other.get(name)
    ]
    weights = [str(identity.get("weights_sha256") or "") for identity in (one, other)]
    for part, name in ((0, "weights of the recognition model"), (2, "predictor of preset instant")):
        first, second = (short_checksum(text.partition("+")[part]) or "none" for text in weights)
        # of two presets one has no predictor: the preset's own line says so
        if first != second and (part == 0 or one.get("preset") == other.get("preset")):
            lines.append((name, first, second))
    return [f"{name}: {first} {where}, {second} {elsewhere}" for name, first, second in lines]


_NOT_SETTINGS = ("scale", "algorithm", "detection")
"""Parts of an identity that are neither settings nor options of a detector or method."""


def _shown(name: str, identity: Mapping[str, Any]) -> str:
    value = identity.get(name)
    if isinstance(value, Mapping):  # a scale
        value = value.get("id")
    if value is not None:
        return str(value)
    # options of detectors and methods are left out if they have their defaults
    return "not set" if name in (*setting_names(), *_NOT_SETTINGS) else "default"
