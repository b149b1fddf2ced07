"""Pipelines for worker processes: ones that meet with accidents. Found there by their names.

Every worker imports this module, so torch, which takes seconds, is imported where it is needed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from faceqan_toolkit.errors import RunError, WeightsError
from faceqan_toolkit.pipeline import Pipeline, Prepared
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Record, Score

GATE_SECONDS = 300
"""How long a photo waits at its gate at most; only a test that fails waits so long."""


def die() -> None:
    """End as a process does that the system kills."""
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)


def gate(folder: Path) -> Path:
    """Return the file that opens the gate for the gated photos of a folder."""
    return folder.with_name("gate")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + GATE_SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


class Blocks:
    """A scorer of several faces at once, as a GPU is."""

    block_faces, backend = 4, "stub"

    def __init__(self) -> None:
        from faceqan_toolkit.models.base import Embedder

        self.embedder = Embedder()

    def score(self, crops) -> list[Score]:
        return [Score(1.0, 1.0) for _ in crops]


class Accidents(Pipeline):
    """What happens to a photo is in its name."""

    def prepare(self, source: PhotoSource) -> Prepared:
        if "killer" in source.path:
            die()
        if "once" in source.path and (marker := Path(source.root) / "alive").exists():
            marker.unlink()
            die()
        if "hanging" in source.path:
            time.sleep(600)
        if "gated" in source.path:
            wait_for(gate(Path(source.root)).exists)
        if "full" in source.path:
            raise RunError("cannot write: No space left on device")
        return super().prepare(source)


def accidents(settings: Settings, crops_folder: Path | None) -> Pipeline:
    return Accidents(settings, crops_folder=crops_folder)


def accidents_in_blocks(settings: Settings, crops_folder: Path | None) -> Pipeline:
    pipeline = accidents(settings, crops_folder)
    pipeline.scorer = Blocks()
    return pipeline


class Together(Pipeline):
    """Each photo waits until as many as make a block are being prepared at the same time."""

    barrier = threading.Barrier(Blocks.block_faces)

    def prepare(self, source: PhotoSource) -> Prepared:
        self.barrier.wait(GATE_SECONDS)
        return super().prepare(source)


def together(settings: Settings, crops_folder: Path | None) -> Pipeline:
    pipeline = Together(settings, crops_folder=crops_folder)
    pipeline.scorer = Blocks()
    return pipeline


def bad_weights(settings: Settings, crops_folder: Path | None) -> Pipeline:
    raise WeightsError("sface.safetensors is damaged")


def unsupported(settings: Settings, crops_folder: Path | None) -> Pipeline:
    from faceqan_toolkit.quality.backends import UnsupportedOperation

    raise UnsupportedOperation("Softplus")


def bug(settings: Settings, crops_folder: Path | None) -> Pipeline:
    raise ZeroDivisionError("nobody thought of this")


def dead_on_arrival(settings: Settings, crops_folder: Path | None) -> Pipeline:
    os._exit(7)


def hard_to_start_again(folder: Path, settings: Settings, crops_folder: Path | None) -> Pipeline:
    """Die while loading, at every start but the first, as often as there are files in a folder."""
    if (first := folder / "first").exists():
        first.unlink()
    else:
        for file in folder.iterdir():
            file.unlink()
            die()
    return accidents(settings, crops_folder)


class Sleeping(Pipeline):
    """One that is at its first photo for an hour."""

    def prepare(self, source: PhotoSource) -> Prepared:
        time.sleep(3600)
        return super().prepare(source)


def sleeping(settings: Settings, crops_folder: Path | None) -> Pipeline:
    return Sleeping(settings, crops_folder=crops_folder)


HELD = "held"
"""Content of the note of a photo that waits for the file `hold` to be removed."""
FIRST_HELD = "04.jpg"


class Noting(Pipeline):
    """Notes beside the photos which Ray node, or parent, is at which photo.

    While the file `hold` is there, photos from `FIRST_HELD` on are begun and not ended.
    """

    def prepare(self, source: PhotoSource) -> Prepared:
        notes = Path(source.root).with_name("notes")
        hold = notes.with_name("hold")
        place = f"{os.environ.get('RAY_RAYLET_PID')}.{os.getppid()}"
        note = notes / f"{source.path}.{place}"
        note.touch()
        if source.path >= FIRST_HELD and hold.exists():
            note.write_text(HELD)
            wait_for(lambda: not hold.exists())
        return super().prepare(source)


def noting(settings: Settings, crops_folder: Path | None) -> Pipeline:
    return Noting(settings, crops_folder=crops_folder)


def by_path(found: list[list[Record]]) -> dict[str, list[Record]]:
    """Return records of photos by path; every photo must have answered once."""
    records = {rows[0].path: rows for rows in found}
    assert len(records) == len(found)
    return records
