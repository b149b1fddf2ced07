"""Photos that are read while they are being listed."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator

import pytest

from faceqan_toolkit.engines.spool import Spool, read_blocks
from faceqan_toolkit.sources.local import LocalFile
from faceqan_toolkit.types import PhotoSource
from tests.conftest import DATA


def source(number: int) -> PhotoSource:
    return PhotoSource("/photos", f"{number}.jpg", LocalFile(DATA / f"{number}.jpg"))


def blocks(spool: Spool) -> list[list[PhotoSource]]:
    return [pickle.loads(block) for block in read_blocks(spool.file)]


@pytest.mark.parametrize("number", [0, 1, 3, 4, 1000])
def test_blocks_are_the_photos_as_often_as_they_are_read(number: int) -> None:
    expected = [source(each) for each in range(number)]
    with Spool(iter(expected), 3) as spool:
        for _ in range(2):
            found = blocks(spool)
            assert [photo for block in found for photo in block] == expected
            assert [len(block) for block in found[:-1]] == [3] * (len(found) - 1)
        spool.check()
    assert not spool.file.exists()


def test_a_reader_waits_for_what_is_not_listed_yet() -> None:
    more = threading.Event()

    def listed() -> Iterator[PhotoSource]:
        yield source(0)
        yield source(1)
        assert more.wait(60)
        yield source(2)

    with Spool(listed(), 2) as spool:
        found = read_blocks(spool.file)
        assert len(pickle.loads(next(found))) == 2
        more.set()
        assert [pickle.loads(block) for block in found] == [[source(2)]]


def test_an_error_ends_the_list_and_is_told() -> None:
    def listed() -> Iterator[PhotoSource]:
        yield source(0)
        raise OSError("the disk is gone")

    with Spool(listed(), 1) as spool:
        assert blocks(spool) == [[source(0)]]
        with pytest.raises(OSError, match="the disk is gone"):
            spool.check()


def test_stopping_ends_an_endless_list() -> None:
    def listed() -> Iterator[PhotoSource]:
        while True:
            yield source(0)

    with Spool(listed(), 100) as spool:
        assert next(read_blocks(spool.file))
    assert "spool" not in {thread.name for thread in threading.enumerate()}
