"""Parquet files written by pyarrow, in the shapes that people have them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.finding import find_photos
from faceqan_toolkit.photos import decode
from faceqan_toolkit.sources.archives import ArchiveOptions
from faceqan_toolkit.sources.local import LocalFile
from faceqan_toolkit.sources.locate import locate
from faceqan_toolkit.sources.parquet import ParquetArchive
from tests.sources.makers import picture

PHOTOS = [picture(number) for number in range(40)]


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


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_gives_clean_errors(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    pq.write_table(pa.table({"image": PHOTOS[:3], "label": [1, 2, 3]}), path)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(data.draw(st.sampled_from([whole[:cut], whole[cut:], b"PAR1" + whole[:cut]])))
    contents(path)
