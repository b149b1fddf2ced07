"""Every engine gives the same records, whatever the number of its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
import torch

from faceqan_toolkit.cores import set_threads
from faceqan_toolkit.engines.base import Engine
from faceqan_toolkit.engines.local import LocalEngine
from faceqan_toolkit.engines.processes import ProcessEngine
from faceqan_toolkit.photos import find_photos
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.conftest import SAMPLES
from tests.engines.pipelines import by_path

ENGINES: dict[str, Callable[[], Engine]] = {
    "1 process": lambda: ProcessEngine(["cpu"]),
    "3 processes": lambda: ProcessEngine(["cpu"] * 3),
}
SETTINGS = {
    "exact": Settings(faces="all", steps=2, copies=2, backend="torch", device="cpu"),
    "instant": Settings(preset="instant", device="cpu"),
}

Found = tuple[dict[str, list[Record]], dict[str, bytes], Engine]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """What `make_engine` does for the engine in this process."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    set_threads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def records(engine: Engine, preset: str, folder: Path) -> Found:
    found = engine.run(find_photos([str(SAMPLES)]), SETTINGS[preset], folder)
    rows = by_path(list(found))
    return rows, {file.name: file.read_bytes() for file in folder.rglob("*.png")}, engine


@pytest.fixture(scope="module", params=SETTINGS)
def local(request, tmp_path_factory) -> tuple[str, Found]:
    folder = tmp_path_factory.mktemp("local")
    return request.param, records(LocalEngine(), request.param, folder / "crops")


@pytest.mark.parametrize("name", ENGINES)
def test_records_and_crops_are_equal(local: tuple[str, Found], name: str, tmp_path: Path) -> None:
    preset, (expected, crops, reference) = local
    assert sum(row.quality is not None for rows in expected.values() for row in rows) > 10
    found, found_crops, engine = records(ENGINES[name](), preset, tmp_path / "crops")
    assert found == expected
    assert found_crops == crops != {}
    assert engine.backend == reference.backend == "torch"
    assert set(engine.seconds) == set(reference.seconds)
    assert all(spent > 0 for spent in engine.seconds.values())
