"""Pipelines for worker processes: ones that meet with accidents. Found there by their names."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from faceqan_toolkit.embedders.base import Embedder
from faceqan_toolkit.embedders.openvino_model import UnsupportedOperation
from faceqan_toolkit.errors import RunError, WeightsError
from faceqan_toolkit.pipeline import Pipeline, Prepared
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Record, Score

SLOW_SECONDS = 4.0


def die() -> None:
    """End as a process does that the system kills."""
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)


class Blocks:
    """A scorer of several faces at once, as a GPU is; the process's cores are free meanwhile."""

    embedder = Embedder()
    block_faces, backend = 4, "stub"

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds

    def score(self, crops) -> list[Score]:
        time.sleep(self.seconds if crops else 0)
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
        if "slow" in source.path:
            time.sleep(SLOW_SECONDS)
        if "full" in source.path:
            raise RunError("cannot write: No space left on device")
        return super().prepare(source)


def accidents(settings: Settings, crops_folder: Path | None) -> Pipeline:
    return Accidents(settings, crops_folder=crops_folder)


def accidents_in_blocks(settings: Settings, crops_folder: Path | None) -> Pipeline:
    pipeline = accidents(settings, crops_folder)
    pipeline.scorer = Blocks()
    return pipeline


PREPARE_SECONDS, BLOCK_SECONDS = 0.12, 0.16


class SlowPreparation(Pipeline):
    """Preparing four photos takes three times as long as scoring them."""

    def prepare(self, source: PhotoSource) -> Prepared:
        time.sleep(PREPARE_SECONDS)
        return super().prepare(source)


def slow_preparation(settings: Settings, crops_folder: Path | None) -> Pipeline:
    pipeline = SlowPreparation(settings, crops_folder=crops_folder)
    pipeline.scorer = Blocks(BLOCK_SECONDS)
    return pipeline


def bad_weights(settings: Settings, crops_folder: Path | None) -> Pipeline:
    raise WeightsError("sface.safetensors is damaged")


def unsupported(settings: Settings, crops_folder: Path | None) -> Pipeline:
    raise UnsupportedOperation("Softplus")


def bug(settings: Settings, crops_folder: Path | None) -> Pipeline:
    raise ZeroDivisionError("nobody thought of this")


def dead_on_arrival(settings: Settings, crops_folder: Path | None) -> Pipeline:
    os._exit(7)


def hard_to_start_again(settings: Settings, crops_folder: Path | None) -> Pipeline:
    """Die while loading, at every start but the first, as often as there are files in a folder."""
    folder = Path(os.environ["HARD_TO_START"])
    if (first := folder / "first").exists():
        first.unlink()
    else:
        for file in folder.iterdir():
            file.unlink()
            die()
    return accidents(settings, crops_folder)


class Sleeping(Pipeline):
    """One that is at its first photo for a minute."""

    def prepare(self, source: PhotoSource) -> Prepared:
        time.sleep(60)
        return super().prepare(source)


def sleeping(settings: Settings, crops_folder: Path | None) -> Pipeline:
    return Sleeping(settings, crops_folder=crops_folder)


class Noting(Pipeline):
    """Takes its time, and notes beside the photos which Ray node, or parent, is at which photo."""

    def prepare(self, source: PhotoSource) -> Prepared:
        notes = Path(source.root).with_name("notes")
        place = f"{os.environ.get('RAY_RAYLET_PID')}.{os.getppid()}"
        (notes / f"{source.path}.{place}").touch()
        time.sleep(0.3)
        return super().prepare(source)


def noting(settings: Settings, crops_folder: Path | None) -> Pipeline:
    return Noting(settings, crops_folder=crops_folder)


def by_path(found: list[list[Record]]) -> dict[str, list[Record]]:
    """Return records of photos by path; every photo must have answered once."""
    records = {rows[0].path: rows for rows in found}
    assert len(records) == len(found)
    return records
