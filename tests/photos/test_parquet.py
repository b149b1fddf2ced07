"""Parquet files written by pyarrow, in the shapes that people have them."""

from __future__ import annotations

import io
import pickle
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.photos import parquet
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import ArchiveOptions, find_photos, locate
from faceqan_toolkit.photos.parquet import ParquetArchive
from faceqan_toolkit.photos.stores import LocalFile
from tests.photos.makers import picture

PHOTOS = [picture(number) for number in range(40)]


class Counting(io.FileIO):
    """A file that counts what is read of it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size)
        type(self).read_bytes += len(data)
        return data


@dataclass(frozen=True)
class CountedFile(LocalFile):
    def open(self) -> Counting:
        return Counting(self.file)


def contents(path: Path, column: str = "") -> tuple[dict[str, bytes], str]:
    found = {}
    try:
        for name, content in ParquetArchive(LocalFile(path), column).members():
            found[name] = content.read()[0]
    except PhotoError as error:
        return found, error.reason
    return found, ""


@pytest.mark.parametrize("shape", ["plain", "struct", "large"])
def test_rows_are_photos(tmp_path: Path, shape: str) -> None:
    values = {
        "plain": pa.array(PHOTOS, pa.binary()),
        "large": pa.array(PHOTOS, pa.large_binary()),
        "struct": pa.array([{"bytes": photo, "path": "same.jpg"} for photo in PHOTOS]),
    }
    path = tmp_path / "faces.parquet"
    table = pa.table({"id": range(40), "picture": values[shape]})
    pq.write_table(table, path, row_group_size=17)
    found, reason = contents(path)
    assert (list(found.values()), reason) == (PHOTOS, "")
    assert list(found)[:2] == ["00000000.jpg", "00000001.jpg"]
    sources = list(find_photos([path]))
    for source in reversed(sources):  # out of order too
        again = pickle.loads(pickle.dumps(locate(source.root, source.path)))
        assert again.content.read() == source.content.read()
        assert again.content.state() == source.content.state()
    assert decode(again, max_pixels=100).pixels.shape == (8, 8, 3)


def test_labels_and_keys_name_photos(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pngs = [picture(number, "PNG") for number in range(3)]
    pq.write_table(pa.table({"image": pngs, "label": [4, 4, None]}), path)
    assert list(contents(path)[0]) == ["00004/00000000.png", "00004/00000001.png", "00000002.png"]
    keys = ["a/1", "b.webp", "../c"]
    pq.write_table(pa.table({"jpg": pngs, "key": keys, "identity": ["x", "y", "z"]}), path)
    found, reason = contents(path)
    assert list(found) == ["x/a/1.png", "y/b.webp"]
    assert "left out 1 whose names lead out of it, e.g. 'z/../c.png'" in reason
    assert ParquetArchive(LocalFile(path)).find("y/b.webp").read()[0] == pngs[1]


def test_rows_of_one_key_are_one_photo(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": PHOTOS[:3], "key": ["a", "b", "a"]}), path)
    found, reason = contents(path)
    assert found == {"a.jpg": PHOTOS[0], "b.jpg": PHOTOS[1]}
    assert "left out 1 whose names came before, e.g. 'a.jpg'" in reason


def test_the_column_is_found_or_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    first, second = [picture(1)], [picture(2)]
    pq.write_table(pa.table({"mask": first, "image": second}), path)
    assert list(contents(path)[0].values()) == second
    pq.write_table(pa.table({"left": first, "right": second, "n": [1]}), path)
    assert "--image-column left|right" in contents(path)[1]
    options = ArchiveOptions(image_column="right")
    (source,) = find_photos([path], options=options)
    assert source.path.endswith("a.parquet/column=right/00000000.jpg")
    assert locate(source.root, source.path).content.read()[0] == second[0]
    assert "no column 'n' with photos" in contents(path, "n")[1]
    pq.write_table(pa.table({"n": [1]}), path)
    assert contents(path)[1] == "no column with encoded photos"


def test_a_row_without_a_photo_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array([None, PHOTOS[1]], pa.binary())}), path)
    sources = list(find_photos([path]))
    with pytest.raises(PhotoError, match="no photo"):
        decode(sources[0], max_pixels=100)
    assert sources[1].content.read()[0] == PHOTOS[1]


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[tuple[list[bytes], ParquetArchive]]:
    """Photos in three row groups of 3 MB, and the archive that counts what is read of it."""
    path = tmp_path / "a.parquet"
    made = random.Random(0)
    values = [made.randbytes(20_000) for _ in range(450)]
    pq.write_table(pa.table({"image": values}), path, row_group_size=150, compression=None)
    yield pq.read_table(path)["image"].to_pylist(), ParquetArchive(CountedFile(path))
    Counting.read_bytes = 0


def shuffled_within(rows: int, distance: int) -> list[int]:
    """Return all rows, none of them further from its place than a distance."""
    made = random.Random(1)
    return sorted(range(rows), key=lambda row: row + made.uniform(0, distance))


def test_rows_a_little_out_of_order_are_read_once(
    counted: tuple[list[bytes], ParquetArchive],
) -> None:
    photos, archive = counted
    cells = [cell for _, cell in archive.members()]
    order = shuffled_within(len(cells), 40)
    assert order != sorted(order)
    assert [cells[row].read()[0] for row in order] == [photos[row] for row in order]
    assert Counting.read_bytes < 1.05 * sum(map(len, photos))


def test_threads_read_rows_once(counted: tuple[list[bytes], ParquetArchive]) -> None:
    photos, archive = counted
    cells = [cell for _, cell in archive.members()]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda cell: cell.read()[0], cells))
    finally:
        sys.setswitchinterval(before)
    assert found == photos
    assert Counting.read_bytes < 1.05 * sum(map(len, photos))


def test_a_row_far_behind_is_found(counted: tuple[list[bytes], ParquetArchive]) -> None:
    photos, archive = counted
    cells = [cell for _, cell in archive.members()]
    for row in (449, 0, 149, 150, 1, 300, 2, 448):
        assert cells[row].read()[0] == photos[row]


def test_what_is_kept_of_large_photos_is_bounded(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [bytes([n]) * 10_000 for n in range(200)]}), path)
    monkeypatch.setattr(parquet, "KEPT_BYTES", 500_000)
    archive = ParquetArchive(LocalFile(path))
    for _, cell in archive.members():
        cell.read()
    reader = parquet._reader(archive, archive.store.state())
    assert [batch.first for batch in reader._latest] == [160, 176, 192]
    assert not reader._groups  # it would hold the group's bytes


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_gives_clean_errors(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    pq.write_table(pa.table({"image": PHOTOS[:3], "label": [1, 2, 3]}), path)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(data.draw(st.sampled_from([whole[:cut], whole[cut:], b"PAR1" + whole[:cut]])))
    contents(path)
