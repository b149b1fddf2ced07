"""RecordIO as InsightFace writes it, against records made byte by byte."""

from __future__ import annotations

import pickle
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import MissingPhoto, PhotoError
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos, locate
from faceqan_toolkit.photos.recordio import RecordArchive
from faceqan_toolkit.photos.stores import LocalFile
from tests.photos.makers import MAGIC, insightface_rec, labelled, picture, write_rec


def contents(archive: Path) -> tuple[dict[str, bytes], str]:
    found = {}
    try:
        for name, content in RecordArchive(LocalFile(archive)).members():
            data, state = content.read()
            assert state == content.state()
            assert len(data) == state.size
            found[name] = data
    except PhotoError as error:
        return found, error.reason
    return found, ""


@pytest.mark.parametrize("index", [True, False])
def test_labels_are_folders(tmp_path: Path, index: bool) -> None:
    people = [[picture(1), picture(2)], [picture(3, "PNG")]]
    path = insightface_rec(tmp_path / "train.rec", people, index=index)
    assert contents(path) == (
        {
            "00000/00000001.jpg": people[0][0],
            "00000/00000002.jpg": people[0][1],
            "00001/00000003.png": people[1][0],
        },
        "",
    )
    sources = list(find_photos([path]))
    assert len(sources) == 3
    for source in sources:
        again = pickle.loads(pickle.dumps(locate(source.root, source.path)))
        assert again.content.read() == source.content.read()
        assert decode(again, max_pixels=100).pixels.shape == (8, 8, 3)
    for name in ("00001/00000001.jpg", "00000/00000009.jpg", "00000/x.jpg", "00000/00000000.jpg"):
        with pytest.raises(PhotoError):
            RecordArchive(LocalFile(path)).find(name)


def test_records_in_parts_and_several_labels(tmp_path: Path) -> None:
    photos = [MAGIC, b"abcd" + MAGIC + MAGIC + b"e", b"ab" + MAGIC, MAGIC * 3 + b"xyz", b"1" * 101]
    records = {key: labelled(float(key), key, data) for key, data in enumerate(photos)}
    # twenty labels reach beyond what is read at first; the second word of a label is the magic
    records[7] = labelled([7.0, *[0.5] * 19], 7, b"many")
    records[8] = labelled(8.0, int.from_bytes(MAGIC * 2, "little"), b"magic id")
    records[9] = labelled(1.5, 9, b"half")
    path = write_rec(tmp_path / "a.rec", records)
    found, reason = contents(path)
    assert reason == ""
    assert list(found.values()) == [*photos, b"many", b"magic id", b"half"]
    assert [name.partition("/")[0] for name in found] == [
        "00000", "00001", "00002", "00003", "00004", "00007", "00008", "1.5",
    ]  # fmt: skip


def test_keys_in_any_order(tmp_path: Path) -> None:
    keys = (30, 5, 17)
    path = write_rec(tmp_path / "a.rec", {key: labelled(0.0, key, b"%d" % key) for key in keys})
    for key in keys:
        found = RecordArchive(LocalFile(path)).find(f"00000/{key:08d}.jpg")
        assert found.read()[0] == b"%d" % key


def test_of_one_key_the_first_record_counts(tmp_path: Path) -> None:
    path = write_rec(tmp_path / "a.rec", {1: labelled(4.0, 1, b"a"), 2: labelled(5.0, 1, b"b")})
    index = path.with_suffix(".idx")
    index.write_text(index.read_text().replace("2\t", "1\t"))
    found, reason = contents(path)
    assert found == {"00004/00000001.jpg": b"a"}
    assert "left out 1 whose names came before, e.g. '00005/00000001.jpg'" in reason


@pytest.mark.slow
@pytest.mark.parametrize("index", [True, False])
def test_listing_remembers_a_few_bits_of_each_photo(tmp_path: Path, index: bool) -> None:
    keys = list(range(20_000))
    random.Random(0).shuffle(keys)
    records = {key: labelled(float(key % 9), key, b"1") for key in keys}
    archive = RecordArchive(LocalFile(write_rec(tmp_path / "a.rec", records, index=index)))
    next(archive.members())
    tracemalloc.start()
    try:
        assert sum(1 for _ in archive.members()) == len(keys)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(keys)


def test_what_is_good_is_used(tmp_path: Path) -> None:
    people = [[picture(number)] for number in range(6)]
    path = insightface_rec(tmp_path / "a.rec", people)
    whole = path.read_bytes()
    # a record in the middle: with an index only it is lost
    middle = whole.index(picture(3)) - 32
    path.write_bytes(whole[:middle] + b"????" + whole[middle + 4 :])
    found, reason = contents(path)
    assert list(found.values()) == [photo for (photo,) in people if photo != picture(3)]
    assert "1 records damaged, the first is record 4: no record starts there" in reason
    path.with_suffix(".idx").unlink()
    found, reason = contents(path)
    assert list(found.values()) == [picture(0), picture(1), picture(2)]
    assert f"at byte {middle:,}" in reason
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        found, reason = contents(path)
        assert list(found.values()) == [picture(number) for number in range(len(found))]
    path.write_bytes(whole)
    path.with_suffix(".idx").write_text(
        f"1\t0\nx\n-1 3\n5 99999999\n6 {2**63 - 1}\n7 {10**40}\n{2**63} 0\n"
    )
    assert "6 records damaged, the first is line 2 of a.idx" in contents(path)[1]
    for digits in (19, 5000):
        with pytest.raises(MissingPhoto):
            RecordArchive(LocalFile(path)).find(f"00000/{'9' * digits}.jpg")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_give_clean_errors(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "any.rec"
    insightface_rec(path, [[b"12345", MAGIC + b"1"], [b"3"]])
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + 4] = data.draw(st.binary(min_size=1, max_size=4))
    path.write_bytes(data.draw(st.one_of(st.binary(max_size=300), st.just(bytes(whole)))))
    path.with_suffix(".idx").write_bytes(
        data.draw(st.one_of(st.binary(max_size=40), st.just(path.with_suffix(".idx").read_bytes())))
    )
    contents(path)
    for key in range(4):
        try:
            RecordArchive(LocalFile(path)).find(f"00000/{key:08d}.jpg").read()
        except PhotoError:
            continue


@given(st.lists(st.lists(st.sampled_from([MAGIC, b"a", b"bc", b"d" * 4]), max_size=6), max_size=5))
@settings(max_examples=60, deadline=None)
def test_parts_are_put_together(tmp_path_factory, photos) -> None:
    path = tmp_path_factory.getbasetemp() / "parts.rec"
    data = [b"".join(photo) for photo in photos]
    write_rec(path, {key: labelled(0.0, key, photo) for key, photo in enumerate(data)})
    assert list(contents(path)[0].values()) == data
