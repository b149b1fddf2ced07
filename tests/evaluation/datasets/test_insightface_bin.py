"""InsightFace's `.bin` files."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import DatasetError, FaceQANError, PhotoError
from faceqan_toolkit.evaluation.datasets.insightface_bin import pixels, unpack
from faceqan_toolkit.evaluation.datasets.registry import read_dataset
from faceqan_toolkit.evaluation.datasets.validation import validate
from tests.conftest import read_rgb
from tests.evaluation.datasets.trees import all_pairs, encoded

LABELS = [True, False, True, True, False, False, True, False, True, False]


def photos() -> list[bytes]:
    """Twenty, of which the fifth is the first again: pairs 0 and 2 are one person's."""
    made = [encoded(10 * index) for index in range(20)]
    made[4] = made[0]
    return made


def write(folder: Path, content: Any, name: str = "lfw.bin", protocol: int = 4) -> Path:
    (folder / name).write_bytes(pickle.dumps(content, protocol))
    return folder / name


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("kind", ["bytes", "arrays", "label array", "tuples"])
def test_ways_they_are_written(tmp_path: Path, protocol: int, kind: str) -> None:
    images: Any = photos()
    labels: Any = LABELS
    if kind == "arrays":
        images = [np.frombuffer(image, np.uint8) for image in images]
        labels = [np.bool_(label) for label in labels]
    elif kind == "label array":
        labels = np.array(labels)
    elif kind == "tuples":
        images, labels = tuple(images), tuple(map(int, labels))
    file = write(tmp_path, (images, labels), protocol=protocol)
    read = read_dataset("bin", file)
    assert read.encoded == tuple(photos())
    found = all_pairs(read)
    assert found.first.tolist() == list(range(0, 20, 2))
    assert found.second.tolist() == list(range(1, 20, 2))
    assert found.mated.tolist() == LABELS
    assert found.fold is not None
    assert found.fold.tolist() == list(range(10))
    assert read.paths[3] == "lfw/images/00003.jpg"
    assert list(read.sources()) == []


def test_python_2_wrote_the_official_ones(tmp_path: Path) -> None:
    """Its texts are bytes with their length in front."""

    def text(data: bytes) -> bytes:
        return b"T" + len(data).to_bytes(4, "little") + data

    body = b"\x80\x02](" + b"".join(map(text, photos())) + b"e](" + b"\x88\x89" * 5 + b"e\x86."
    (tmp_path / "agedb_30.bin").write_bytes(body)
    read = read_dataset("bin", tmp_path)
    assert read.name == "agedb_30"
    assert read.encoded == tuple(photos())
    assert all_pairs(read).mated.tolist() == [True, False] * 5


def test_people_are_what_pairs_and_copies_join(tmp_path: Path) -> None:
    read = read_dataset("bin", write(tmp_path, (photos(), LABELS)))
    people = read.identities
    assert len({people[0], people[1], people[4], people[5]}) == 1
    assert people[2] != people[3]
    assert people[6] == people[7] != people[0]


def test_photos_are_decoded_and_unpacked(tmp_path: Path) -> None:
    images = [encoded(200, ".png"), *photos()[1:]]
    read = read_dataset("bin", write(tmp_path, (images, LABELS)))
    assert (pixels(read, 0) == 200).all()
    assert read.paths[0] == "lfw/images/00000.png"
    unpack(read, tmp_path / "out")
    for index, path in enumerate(read.paths):
        np.testing.assert_array_equal(read_rgb(tmp_path / "out" / path), pixels(read, index))
    with pytest.raises(DatasetError, match="cannot write"):
        unpack(read, tmp_path / "lfw.bin")


def test_validation(tmp_path: Path) -> None:
    images = photos()
    images[5] = b"no photo"
    read = read_dataset("bin", write(tmp_path, (images, LABELS)))
    report = validate(read)
    assert report.issue_counts == {"unreadable_photo": 1, "official_count": 1}
    with pytest.raises(PhotoError):
        pixels(read, 5)
    # photo 4 is photo 0, and pairs 0 and 2 are mated: then 1 and 5 are one person's too
    contradicting = [*photos()[:6], photos()[1], photos()[5], *photos()[8:]]
    contradicting[5] = encoded(50)
    contradicting[7] = contradicting[5]
    labels = [*LABELS[:3], False, *LABELS[4:]]
    read = read_dataset("bin", write(tmp_path, (contradicting, labels)))
    assert validate(read).issue_counts["contradicting_identity"] == 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ((photos(), LABELS[:9]), "row_count"),
        ((photos()[:19], LABELS), "row_count"),
        ((["text", *photos()[1:]], LABELS), "malformed_row"),
        (([b"", *photos()[1:]], LABELS), "malformed_row"),
        (([np.zeros((8, 8, 3), np.uint8), *photos()[1:]], LABELS), "malformed_row"),
        (([np.zeros(8, np.float32), *photos()[1:]], LABELS), "malformed_row"),
        ((photos(), [2, *LABELS[1:]]), "malformed_row"),
        ((photos(), ["yes", *LABELS[1:]]), "malformed_row"),
        ((photos(),), "unreadable_list"),
        ((photos(), np.array(1)), "unreadable_list"),
        ({"a": 1}, "unreadable_list"),
        ((photos(), [os.system]), "unreadable_list"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, content: Any, kind: str) -> None:
    file = write(tmp_path, content)
    report = validate(read_dataset("bin", file, strict=False))
    assert report.issue_counts[kind] == 1
    assert not report.ok
    with pytest.raises(DatasetError, match=r"lfw\.bin"):
        read_dataset("bin", file)


class Command:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_a_command_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    file = write(tmp_path, ([Command(f"echo > {marker}"), *photos()[1:]], LABELS))
    with pytest.raises(
        DatasetError, match=r"refused: the pickle would run .*system; nothing was run"
    ):
        read_dataset("bin", file)
    assert not marker.exists()


def test_which_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no \.bin"):
        read_dataset("bin", tmp_path)
    write(tmp_path, (photos(), LABELS))
    assert read_dataset("bin", tmp_path).name == "lfw"
    write(tmp_path, (photos(), LABELS), "cfp_fp.bin")
    with pytest.raises(DatasetError, match=r"cfp_fp\.bin, lfw\.bin"):
        read_dataset("bin", tmp_path)


@settings(deadline=None)
@given(st.data())
def test_any_damage_is_read_or_refused(data: st.DataObject) -> None:
    whole = pickle.dumps(([b"\xff\xd8 one", np.arange(4, dtype=np.uint8)], [True]), 4)
    place = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:place] + data.draw(st.binary(max_size=4)) + whole[place + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lfw.bin"
        file.write_bytes(broken)
        validate(read_dataset("bin", file, strict=False))
        with contextlib.suppress(FaceQANError):
            read_dataset("bin", file)
