"""Images in memory: the same records as from files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from faceqan_toolkit import Pipeline, Record, Settings
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.events import Advanced, Ended, Event, Started
from tests.conftest import SAMPLES

PHOTO = SAMPLES / "hopper.jpg"
OF_THE_FILE = {"path", "root", "file_size", "mtime_ns", "sha256"}


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(Settings(steps=2, copies=2, backend="torch", device="cpu"))


@pytest.fixture(scope="module")
def expected(pipeline: Pipeline) -> Record:
    """What a run would have, whose engines compute with one thread."""
    (record,) = pipeline.assess(PHOTO)
    return record


def values(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.to_dict().items() if name not in OF_THE_FILE}


def photo() -> Image.Image:
    return Image.open(PHOTO)


SAME: dict[str, Callable[[], Any]] = {
    "text": lambda: str(PHOTO),
    "bytes": PHOTO.read_bytes,
    "bytearray": lambda: bytearray(PHOTO.read_bytes()),
    "PIL": photo,
    "array": lambda: np.asarray(photo()),
    "not contiguous": lambda: np.asarray(photo())[..., ::-1].copy()[..., ::-1],
    "RGBA": lambda: np.asarray(photo().convert("RGBA")),
    "PIL, RGBA": lambda: photo().convert("RGBA"),
}


@pytest.mark.parametrize("kind", SAME)
def test_records_are_equal(pipeline: Pipeline, expected: Record, kind: str) -> None:
    (record,) = pipeline.assess(SAME[kind]())
    assert values(record) == values(expected)
    assert record.status == "ok"
    assert record.quality_100 is not None or pipeline.settings.copies != 10


GREY: dict[str, Callable[[], Any]] = {
    "array": lambda: np.asarray(photo().convert("L")),
    "(H, W, 1)": lambda: np.asarray(photo().convert("L"))[:, :, None],
    "16 bits": lambda: Image.fromarray(np.asarray(photo().convert("L")).astype(np.uint16) * 257),
}


@pytest.mark.parametrize("kind", GREY)
def test_grey(pipeline: Pipeline, kind: str) -> None:
    (record,) = pipeline.assess(GREY[kind]())
    (as_rgb,) = pipeline.assess(photo().convert("L").convert("RGB"))
    assert record.quality == as_rgb.quality


def test_orientation_is_that_of_the_file(pipeline: Pipeline) -> None:
    file = SAMPLES / "astronaut_sideways_exif.jpg"
    assert values(pipeline.assess(Image.open(file))[0]) == values(pipeline.assess(file)[0])


REASONS = {
    "unreadable": b"no photo",
    "no_face": np.zeros((90, 90, 3), np.uint8),
    "missing": "none.jpg",
    "not_a_file": SAMPLES,
    "too_large": np.zeros((30_000, 30_000), np.uint8),
}


@pytest.mark.parametrize("status", REASONS)
def test_what_cannot_be_scored_is_a_record(pipeline: Pipeline, status: str) -> None:
    (record,) = pipeline.assess(REASONS[status])
    assert record.status == status
    assert record.reason
    assert record.quality is None


def test_a_damaged_file_in_pillow(pipeline: Pipeline, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(PHOTO.read_bytes()[:9000])
    with Image.open(cut) as image:
        (record,) = pipeline.assess(image)
    assert (record.status, record.path) == ("unreadable", str(cut))


WRONG = {
    "float": (np.zeros((9, 9, 3)), "this one is float64"),
    "a batch": (np.zeros((2, 9, 9, 3), np.uint8), "holds 2: give them to assess_many"),
    "channels first": (np.zeros((3, 9, 9), np.uint8), r"this one is \(3, 9, 9\)"),
    "a list": ([PHOTO], "builtins.list; assess_many takes several"),
    "a tensor": (torch.zeros(9, 9, 3), "torch.Tensor"),
    "nothing": (None, "NoneType"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_image_is_told(pipeline: Pipeline, kind: str) -> None:
    given, told = WRONG[kind]
    with pytest.raises(SettingsError, match=told):
        pipeline.assess(given)  # type: ignore[arg-type]


def test_many(pipeline: Pipeline, expected: Record) -> None:
    events: list[Event] = []
    images = [PHOTO, np.zeros((90, 90, 3), np.uint8), b"", PHOTO.read_bytes()]
    found = list(pipeline.assess_many(images, progress=events.append))
    assert [len(records) for records in found] == [1, 1, 1, 1]
    assert [records[0].path for records in found] == ["hopper.jpg", "image 1", "image 2", "image 3"]
    assert values(found[0][0]) == values(found[3][0]) == values(expected)
    assert events[0] == Started(4, "image")
    assert events[-1] == Ended(complete=True)
    assert sum(isinstance(event, Advanced) for event in events) == 4


@pytest.mark.parametrize("given", ["a.jpg", b"", PHOTO, np.zeros((9, 9, 3), np.uint8)])
def test_one_image_in_place_of_many(pipeline: Pipeline, given: object) -> None:
    with pytest.raises(SettingsError, match="takes a list of images, not one"):
        next(pipeline.assess_many(given))  # type: ignore[arg-type]


def test_threads(pipeline: Pipeline, expected: Record) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    found: list[Record] = []
    threads = [
        threading.Thread(target=lambda: found.extend(pipeline.assess(PHOTO))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [values(record) for record in found] == [values(expected)] * 4
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_data_frames_take_records(expected: Record) -> None:
    row = expected.to_dict()
    assert list(row)[:5] == ["path", "root", "face", "status", "reason"]
    assert row["quality"] == expected.quality
    assert all(isinstance(value, str | int | float | None) for value in row.values())
