"""The run folder: what was asked, the ledger of records, who may write."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.files import check_text, lock, read_text, refuse_links, write_text
from faceqan_toolkit.quality.scale import Scale, builtin_scale, scale_from
from faceqan_toolkit.runs.differences import differences
from faceqan_toolkit.runs.ledger import Ledger, as_table
from faceqan_toolkit.runs.run_json import parse_run_json
from faceqan_toolkit.runs.shards import Shard
from faceqan_toolkit.settings import Settings, fingerprint_of
from faceqan_toolkit.text import exact_text, reason_of
from faceqan_toolkit.types import Record

FLUSH_SECONDS = 30.0
FLUSH_RECORDS = 20_000

HEALABLE = frozenset(
    {
        "missing_extra",
        "no_permission",
        "missing",
        "too_large",
        "crashed",
        "unreachable",
        "timed_out",
    }
)
"""Failures that another try may not meet again: tried again whenever a run goes on."""

PACKAGES = ("torch", "torchvision", "facenet-pytorch", "opencv-python-headless", "scikit-image",
            "numpy", "pillow", "pyarrow", "duckdb", "openvino")  # fmt: skip


@dataclass(frozen=True)
class RunInfo:
    """A run as its `run.json` describes it.

    Attributes:
        folder: of the run.
        content: of `run.json`.
    """

    folder: Path
    content: Mapping[str, Any]

    @property
    def task(self) -> str:
        """The task its records come from."""
        return str(self.content["settings"]["task"])

    @property
    def no_scores(self) -> str:
        """What to tell whoever asks for scores that its task does not make."""
        return (
            f"{self.folder} has no scores; it was made by {self.task}. Scores come from "
            "align-and-score, or from score on its crops"
        )

    def check_threshold(self, quality: float | None) -> None:
        """Refuse a threshold that no score of the run can reach; None is no threshold.

        Raises:
            SettingsError: it is above the highest quality there is.
        """
        method = self.content["settings"].get("method", "faceqan")
        if quality is not None and quality > 1 and method == "faceqan":
            raise SettingsError(
                f"no quality reaches {exact_text(quality)}: it is 1 at most; the numbers up "
                "to 100 are in the columns quality_100 and percentile"
            )

    @property
    def settings(self) -> Settings:
        """What it was asked to do.

        Raises:
            RunError: these are settings of another version.
        """
        try:
            return Settings.from_dict(self.content["settings"])
        except SettingsError as error:
            raise RunError(
                f"{self.folder / 'run.json'} has settings of another version: {error}; "
                "use another run folder"
            ) from error

    @property
    def scale(self) -> Scale | None:
        """The scale from 0 to 100 of its scores, None if its model has none.

        Raises:
            RunError: `run.json` holds something else in its place.
        """
        try:
            return scale_from(self.content.get("scale"))
        except SettingsError as error:
            raise RunError(f"{self.folder / 'run.json'}: {error}") from error

    @property
    def ledger(self) -> Ledger:
        """Its records."""
        return Ledger(self.folder / "records")


def read_run(folder: Path) -> RunInfo:
    """Return what a run folder says of itself.

    Raises:
        RunError: it is no run folder, its `run.json` cannot be read, or its name is no text.
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


class RunWriter:
    """A run folder opened for writing; use it in a `with` statement.

    Args:
        folder: made if it is not there.
        settings: must have the identity of those the folder was made with.
        weights_sha256: of the recognition model (`FoundModel.weights`), "" for a task without one.
        model: what `run.json` says of it besides.
        shard: the part of the photos it is for; None means all.
        merged: what `run.json` says of the runs that a new one is made of, see `merging.merge`.
        identity: of those runs, which another version may have made; None takes the settings'.

    Attributes:
        ledger: its records.
        invocations: what each command did.
        repaired: what people should know of damage that was found and put right.

    Raises:
        RunError: other settings, another process at work, a folder that is no run's.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        weights_sha256: str,
        model: Mapping[str, Any] | None = None,
        *,
        shard: Shard | None = None,
        merged: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.model = dict(model or {})
        self.shard = str(shard) if shard else None
        self.merged = dict(merged) if merged else None
        self.identity = dict(identity or settings.identity(weights_sha256))
        self.fingerprint = fingerprint_of(self.identity)
        self.scale = builtin_scale(settings, weights_sha256)
        self.calibration: dict[str, Any] | None = None
        self._waiting: list[Record] = []
        self._flushed = time.monotonic()
        self.invocations: list[dict[str, Any]] = []
        self.ledger = Ledger(folder / "records")
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
        """The run as its readers see it."""
        return RunInfo(
            self.folder, {"settings": self.settings.as_dict(), "scale": self._scale_as_dict()}
        )

    @property
    def crops_folder(self) -> Path | None:
        """Where aligned crops go, if they are made and kept."""
        wanted = self.settings.keep_crops and "alignment" in self.settings.stages
        return self.folder / "crops" if wanted else None

    def use_calibration(self, content: Mapping[str, Any], scale: Scale | None) -> bool:
        """Take thresholds, and a scale if the run has none; tell whether that changes anything.

        Args:
            content: what `run.json` says of the calibration.
            scale: the calibration's.

        Raises:
            RunError: the run has another scale, which its numbers keep.
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
        """Take all records of a photo; the next part has them.

        Args:
            records: of one attempt; they take the place of those with a lower one.

        Raises:
            RunError: the part cannot be written.
        """
        self._waiting += records
        overdue = time.monotonic() - self._flushed >= FLUSH_SECONDS
        if overdue or len(self._waiting) >= FLUSH_RECORDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a new part: under another name, to the disk, then renamed.

        Raises:
            RunError: it cannot be written.
        """
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
        """Join the ledger's parts if they have become many.

        Raises:
            RunError: they cannot be read or written; nothing is lost.
        """
        try:
            self.ledger.compact()
        except (OSError, pa.ArrowException) as error:
            self.ledger.refuse_damage()
            raise RunError(f"cannot join the parts in {self.ledger.folder}: {error}") from error

    def write_info(
        self, counts: Mapping[str, int], invocation: Mapping[str, Any] | None = None
    ) -> None:
        """Write `run.json`.

        Args:
            counts: of rows by status.
            invocation: what this process did, if anything: photos, seconds by stage.
        """
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
            "scale": self._scale_as_dict(),
            "calibration": self.calibration,
            "shard": self.shard,
            "merged": self.merged,
            "versions": versions(),
            "counts": dict(counts),
            "invocations": self.invocations,
        }
        write_text(self.folder / "run.json", json.dumps(content, indent=2) + "\n")

    def close(self) -> None:
        """Write what waits and let others in."""
        try:
            self.flush()
        finally:
            self._lock.release()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _scale_as_dict(self) -> dict[str, Any] | None:
        return self.scale.as_dict() if self.scale else None

    def _take_folder(self, *, fresh: bool) -> None:
        """Lock the folder, made if it is not there; a fresh one must hold nothing of others."""
        folder = self.folder
        try:
            if fresh and folder.is_dir() and not all(map(_is_our_own, folder.iterdir())):
                raise RunError(
                    f"{folder} holds other files and is not a run folder; choose another"
                )
            (folder / "records").mkdir(parents=True, exist_ok=True)
            self._lock = lock(folder / ".lock", folder)
        except OSError as error:
            raise RunError(f"cannot use {folder} as a run folder: {reason_of(error)}") from error

    def _continue(self) -> None:
        """Check that the folder was made with the same identity; keep its history."""
        info = read_run(self.folder)
        content = info.content
        calls = content.get("invocations", [])
        if content["settings"].get("refine") or any("refined" in call for call in calls):
            raise RunError(
                f"{self.folder} was made with --refine, which is no longer supported: it can be "
                "ranked, filtered and reported, but not continued; use another run folder"
            )
        before = content.get("identity", {})
        same_task = before.get("task") == self.identity["task"]
        if same_task and before.get("detection") != self.identity.get("detection"):
            raise RunError(
                f"{self.folder} was made by another version, which finds other faces: it can be "
                "ranked, filtered and reported, but not continued; use another run folder"
            )
        if before != self.identity:
            differing = differences(before, self.identity, "in the run", "now")
            raise RunError(
                f"{self.folder} was made with other settings, whose scores must not be mixed:\n"
                + "".join(f"  {line}\n" for line in differing)
                + "Use another run folder, or the same settings."
            )
        if content.get("shard") != self.shard:
            raise RunError(
                f"{self.folder} is for {_shard_text(content.get('shard'))}, not for "
                f"{_shard_text(self.shard)}; every shard has a run folder of its own"
            )
        self.invocations = list(calls)
        self.merged = self.merged or content.get("merged")
        if "scale" in content:  # its rows keep the scale they began with
            self.scale = info.scale
        self.calibration = content.get("calibration")


def _shard_text(shard: str | None) -> str:
    return f"shard {shard} of the photos" if shard else "all photos"


def _is_our_own(entry: Path) -> bool:
    """Tell whether a file may be in a folder before it becomes a run's."""
    return entry.name == ".lock" or entry.name.startswith(".spill-")


def versions() -> dict[str, str]:
    """Return the versions of this package and of those a score depends on."""
    found = {}
    for package in ("faceqan-toolkit", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found
