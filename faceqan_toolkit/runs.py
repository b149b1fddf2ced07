"""The run folder: what was asked, the ledger of records, who may write."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pyarrow as pa
from filelock import FileLock, Timeout

from faceqan_toolkit.errors import PhotoError, RunError, SettingsError
from faceqan_toolkit.files import write_text
from faceqan_toolkit.ledger import Ledger, as_table
from faceqan_toolkit.scale import Scale, builtin_scale, scale_from
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.sources.locate import is_there, locate
from faceqan_toolkit.types import PhotoSource, Record

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


class Known(NamedTuple):
    """What the ledger says of a photo."""

    root: str
    status: str
    file_size: int | None
    mtime_ns: int | None
    sha256: str
    landmarks_id: str
    attempt: int


def _known(row: Mapping[str, Any]) -> Known:
    return Known(**{name: row[name] for name in Known._fields})


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

    @property
    def settings(self) -> Settings:
        """What it was asked to do.

        Raises:
            RunError: these are settings of another version.
        """
        known = {item.name for item in fields(Settings)}
        stored = {name: value for name, value in self.content["settings"].items() if name in known}
        if stored.get("landmarks"):
            stored["landmarks"] = Path(stored["landmarks"])
        try:
            return Settings(**stored)
        except (SettingsError, TypeError) as error:
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
        RunError: it is no run folder, or its `run.json` cannot be read.
    """
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if "task" not in content["settings"]:
            raise KeyError("task")
        return RunInfo(folder, content)
    except FileNotFoundError:
        raise RunError(
            f"{folder} is not a run folder: it has no run.json; give the folder behind -o of a run"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / 'run.json'} cannot be read: {error}") from error


class Run:
    """A run folder opened for writing; use it in a `with` statement.

    Args:
        folder: made if it is not there.
        settings: must have the identity of those the folder was made with.
        weights_sha256: of the recognition model (`FoundModel.weights`), "" for a task without one.
        model: what `run.json` says of it besides.
        retry_failed: try every photo without a score again, not only healable ones.

    Attributes:
        ledger: its records.
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
        retry_failed: bool = False,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.model = dict(model or {})
        self.retry_failed = retry_failed
        self.identity = settings.identity(weights_sha256)
        self.fingerprint = settings.fingerprint(weights_sha256)
        self.scale = builtin_scale(settings, weights_sha256)
        self.calibration: dict[str, Any] | None = None
        self._known: dict[str, Known] = {}
        self._waiting: list[Record] = []
        self._flushed = time.monotonic()
        self._invocations: list[dict[str, Any]] = []
        self.ledger = Ledger(folder / "records")
        self._lock = FileLock(folder / ".lock")
        try:
            os.fspath(folder).encode()
        except UnicodeEncodeError:
            raise RunError(f"the name of {folder!r} is no text; choose another folder") from None
        fresh = not (folder / "run.json").exists()
        try:
            if (
                fresh
                and folder.is_dir()
                and any(entry.name != ".lock" for entry in folder.iterdir())
            ):
                raise RunError(
                    f"{folder} holds other files and is not a run folder; choose another"
                )
            (folder / "records").mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"another process is writing to {folder}; wait for it, or take another folder"
            ) from None
        except OSError as error:
            raise RunError(f"cannot use {folder} as a run folder: {error.strerror}") from error
        try:
            if fresh:
                self.write_info({})  # the ledger is worth nothing without its settings
            else:
                self._continue()
            self.repaired = tuple(self.ledger.repair())
            self._read_known()
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

    def pending(self, source: PhotoSource, landmarks_id: str = "") -> bool:
        """Tell whether a photo must be processed: new, changed, or worth another try.

        Raises:
            RunError: the run already has another photo by that path, from another root.
        """
        known = self._known.get(source.path)
        if known is None:
            return True
        unchanged = known.landmarks_id == landmarks_id and self._same_file(source, known)
        if known.root != source.root and not unchanged:
            other = locate(known.root, source.path)
            if is_there(other):
                raise RunError(
                    f"{source.place} and {other.place} would both be {source.path!r} in "
                    f"{self.folder}; use another run folder, or give their common parent folder "
                    "from the start"
                )
        if not unchanged:
            return True
        if known.status == "ok":
            return False
        return self.retry_failed or known.status in HEALABLE

    def append(self, records: list[Record]) -> None:
        """Take all records of a photo, in place of earlier ones; the next part has them.

        Raises:
            RunError: the part cannot be written.
        """
        known = self._known.get(records[0].path)
        attempt = known.attempt + 1 if known else 0
        records = [replace(record, attempt=attempt) for record in records]
        self._waiting += records
        for record in records:
            self._note(record.path, _known(record.as_dict()))
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
        try:
            self.ledger.write([as_table(self._waiting)])
        except OSError as error:
            raise RunError(
                f"cannot write to {self.ledger.folder}: {error.strerror or error}; parts written "
                "before are safe, the same command goes on from there"
            ) from error
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
            self._invocations.append(dict(invocation))
        model = None
        if "quality" in self.settings.stages:
            weights, _, head = self.identity["weights_sha256"].partition("+")
            model = {"name": self.settings.model, **self.model, "sha256": weights}
            model |= {"head_sha256": head} if head else {}
        content = {
            "tool": "faceqan-toolkit",
            "fingerprint": self.fingerprint,
            "settings": self.settings.as_dict(),
            "identity": self.identity,
            "model": model,
            "scale": self._scale_as_dict(),
            "calibration": self.calibration,
            "versions": versions(),
            "counts": dict(counts),
            "invocations": self._invocations,
        }
        write_text(self.folder / "run.json", json.dumps(content, indent=2) + "\n")

    def close(self) -> None:
        """Write what waits and let others in."""
        try:
            self.flush()
        finally:
            self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _scale_as_dict(self) -> dict[str, Any] | None:
        return self.scale.as_dict() if self.scale else None

    def _continue(self) -> None:
        """Check that the folder was made with the same identity; keep its history."""
        info = read_run(self.folder)
        content = info.content
        before = content.get("identity", {})
        differing = [
            f"  {name}: {before.get(name)!r} in the run, {self.identity.get(name)!r} now"
            for name in {**before, **self.identity}
            if before.get(name) != self.identity.get(name)
        ]
        if differing:
            raise RunError(
                f"{self.folder} was made with other settings, whose scores must not be mixed:\n"
                + "\n".join(differing)
                + "\nUse another run folder, or the same settings."
            )
        self._invocations = list(content.get("invocations", []))
        if "scale" in content:  # its rows keep the scale they began with
            self.scale = info.scale
        self.calibration = content.get("calibration")

    def _read_known(self) -> None:
        columns = ["path", *Known._fields]
        for batch in self.ledger.dataset().to_batches(columns=columns):
            for row in batch.to_pylist():
                self._note(row["path"], _known(row))

    def _note(self, path: str, entry: Known) -> None:
        earlier = self._known.get(path)
        # a photo counts as failed as long as one of its faces does
        if (
            earlier is None
            or entry.attempt > earlier.attempt
            or (entry.attempt == earlier.attempt and earlier.status == "ok")
        ):
            self._known[path] = entry

    def _same_file(self, source: PhotoSource, known: Known) -> bool:
        try:
            state = source.content.state()
        except PhotoError:
            return known.file_size is None
        if state.size != known.file_size:
            return False
        if state.mtime_ns == known.mtime_ns:
            return True
        if not known.sha256:
            return False
        try:
            return hashlib.sha256(source.content.read()[0]).hexdigest() == known.sha256
        except PhotoError:
            return False


def versions() -> dict[str, str]:
    """Return the versions of this package and of those a score depends on."""
    found = {}
    for package in ("faceqan-toolkit", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found
