"""Photos that are read while they are being listed."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from faceqan_toolkit.engines.spool import Block, Spool, read_blocks
from faceqan_toolkit.errors import RunError
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.types import PhotoSource
from tests.cli.test_faults import in_namespace, needs_mounts
from tests.conftest import DATA


def source(number: int) -> PhotoSource:
    return PhotoSource("/photos", f"{number}.jpg", LocalFile(DATA / f"{number}.jpg"))


def blocks(spool: Spool) -> list[list[PhotoSource]]:
    found = [pickle.loads(block) for block in read_blocks(spool.file)]
    assert [block.number for block in found] == list(range(len(found)))
    return [block.photos for block in found]


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
        assert pickle.loads(next(found)).photos == [source(0), source(1)]
        more.set()
        assert [pickle.loads(block) for block in found] == [Block(1, [source(2)])]


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


def test_blocks_that_come_back_twice_or_not_at_all() -> None:
    with Spool(map(source, range(3)), 1) as spool:
        assert len(blocks(spool)) == 3
        assert spool.take(2)
        assert spool.take(0)
        assert not spool.take(2)
        with pytest.raises(RunError, match=r"^1 of 3 blocks of photos have not come back"):
            spool.check_all_back()
        assert spool.take(1)
        spool.check_all_back()


def test_a_list_that_is_not_at_its_end() -> None:
    """All blocks there are have come back, and there would be more."""
    more = threading.Event()

    def listed() -> Iterator[PhotoSource]:
        yield source(0)
        more.wait(60)

    with Spool(listed(), 1) as spool:
        assert next(read_blocks(spool.file))
        assert spool.take(0)
        with pytest.raises(RunError, match=r"^some of 1 block of photos have not come back"):
            spool.check_all_back()
        more.set()


@pytest.mark.parametrize(
    "name",
    ["IMG_{:08d}.jpg".format, lambda _: f"{uuid4().hex}.jpg"],
    ids=["counted up", "without order"],
)
def test_as_many_bytes_a_photo_as_the_docs_say(name: Callable[[int], str]) -> None:
    listed = (PhotoSource("/photos", path, LocalFile(Path("/photos") / path))
              for path in map(name, range(6400)))  # fmt: skip
    with Spool(listed, 64) as spool:
        assert len(list(read_blocks(spool.file))) == 100
        assert 5 < spool.file.stat().st_size / 6400 < 40


FULL = """
from pathlib import Path
from itertools import count
from faceqan_toolkit.engines.spool import Spool, read_blocks
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.types import PhotoSource
listed = (PhotoSource("/p", f"{n}.jpg", LocalFile(Path(f"/p/{n}.jpg"))) for n in count())
with Spool(listed, 64) as spool:
    for _ in range(2):
        print(len(list(read_blocks(spool.file))))
    print(spool.file)
    spool.check()
"""


@needs_mounts
def test_a_full_disk_ends_the_list_and_is_told(tmp_path: Path) -> None:
    """Whoever reads it comes to an end, as often as it is read, with whole blocks only."""
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o size=64k tmpfs disk; TMPDIR=$PWD/disk exec "$0" -c "$@"'
    done = in_namespace(script, FULL, cwd=tmp_path)
    first, second, file = done.stdout.split()
    assert int(first) == int(second) > 10
    assert Path(file).is_relative_to(tmp_path / "disk")
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("faceqan_toolkit"))
    assert error == (
        "faceqan_toolkit.errors.RunError: cannot write the list of photos to "
        f"{Path(file).parent}: No space left on device"
    )


def test_without_a_place_for_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(RunError, match=r"no place for the list of photos.*nowhere"):
        Spool(iter([]), 1)


def test_it_lies_in_the_run_folder(tmp_path: Path) -> None:
    with Spool(iter([source(0)]), 1, tmp_path) as spool, Spool(iter([]), 1, tmp_path) as other:
        assert spool.file.parent.parent == other.file.parent.parent == tmp_path
        assert blocks(spool) == [[source(0)]]
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from faceqan_toolkit.engines.spool import Spool
with Spool(iter([]), 1, Path(sys.argv[1])) as spool:
    print(spool.file.parent, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_what_a_killed_command_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        with Spool(iter([]), 1, tmp_path):
            assert folder.exists(), "its process lives"
        process.send_signal(signal.SIGKILL)
    assert folder.exists()
    with Spool(iter([]), 1, tmp_path):
        assert not folder.exists()
