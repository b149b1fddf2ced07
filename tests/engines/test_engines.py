"""Every engine gives the records of a plain pipeline, whatever the number of its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
import torch

from faceqan_toolkit.engines.base import Engine, InlineEngine
from faceqan_toolkit.engines.processes import ProcessEngine
from faceqan_toolkit.engines.ray import RayEngine
from faceqan_toolkit.hardware import set_threads
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.conftest import SAMPLES
from tests.engines.pipelines import by_path

ENGINES: dict[str, Callable[[], Engine]] = {
    "inline": InlineEngine,
    "3 processes": lambda: ProcessEngine(["cpu"] * 3),
    "2 processes, 3 threads prepare": lambda: ProcessEngine(["cpu"] * 2, preparers=3),
    "ray": lambda: RayEngine(len(PHOTOS)),
    "ray, scored by others": lambda: RayEngine(len(PHOTOS), split=True),
}
PHOTOS = [
    str(SAMPLES / name)
    for name in (
        *("astronaut.jpg", "astronaut_sideways_exif.jpg", "astronaut_thumbnail.jpg", "corrupt.jpg"),
        *("hopper.jpg", "hopper_dark.jpg", "hopper_tiny.jpg", "no_face.png", "two_people.jpg"),
    )
]
SETTINGS = {
    "exact": Settings(faces="all", steps=2, copies=2, backend="torch", device="cpu"),
    "instant": Settings(preset="instant", device="cpu"),
}
RUNS = [
    *(("exact", name) for name in ("inline", "3 processes", "ray")),
    *(("instant", name) for name in ENGINES if name not in ("3 processes", "ray")),
]

Found = tuple[dict[str, list[Record]], dict[str, bytes]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """What `make_engine` does for the engine in this process."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    set_threads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def crops(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*.png")}


@pytest.fixture(scope="module")
def expected(request, tmp_path_factory) -> tuple[Settings, Found, Pipeline]:
    """What a pipeline in this process gives."""
    folder = tmp_path_factory.mktemp("local") / "crops"
    settings = SETTINGS[request.param]
    pipeline = Pipeline(settings, crops_folder=folder)
    found = pipeline.records(pipeline.prepare_ahead(find_photos(PHOTOS)))
    return settings, (by_path(list(found)), crops(folder)), pipeline


@pytest.mark.parametrize(
    ("expected", "name"),
    [
        pytest.param(*run, marks=[pytest.mark.slow] if run[1].startswith("ray") else [])
        for run in RUNS
    ],
    indirect=["expected"],
)
def test_records_and_crops_are_equal(
    expected: tuple[Settings, Found, Pipeline], name: str, tmp_path: Path, request
) -> None:
    settings, (rows, pictures), pipeline = expected
    if name.startswith("ray"):
        request.getfixturevalue("ray_cluster")
        (tmp_path / "run.json").write_text("{}")
    assert sum(row.quality is not None for photo in rows.values() for row in photo) > 5
    engine = ENGINES[name]()
    found = list(engine.run(find_photos(PHOTOS), settings, tmp_path / "crops"))
    assert by_path(found) == rows
    assert crops(tmp_path / "crops") == pictures != {}
    assert engine.backend == "torch"
    assert set(engine.seconds) == set(pipeline.seconds)
    assert all(spent > 0 for spent in engine.seconds.values())
