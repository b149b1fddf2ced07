"""Files to their places, on real file systems."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from faceqan_toolkit.errors import NotPlaced
from faceqan_toolkit.files import sha256_of
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.results import copying
from faceqan_toolkit.results.copying import (
    FINISH,
    PENDING,
    THERE,
    check_inside,
    part_of,
    place_below,
)
from faceqan_toolkit.types import FileState

MODES = ("copy", "move", "link", "symlink")
posix = pytest.mark.skipif(os.name == "nt", reason="needs links without a privilege")


def state_of(file: Path) -> FileState:
    found = file.stat()
    return FileState(found.st_size, found.st_mtime_ns, sha256_of(file))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "photos" / "a.jpg"
    file.parent.mkdir()
    file.write_bytes(b"a photo")
    return file


@pytest.fixture(params=["same", "other"])
def folder(request, tmp_path: Path) -> Iterator[Path]:
    """A folder on the photos' file system, or on another one."""
    if request.param == "same":
        yield tmp_path / "out"
        return
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    target = memory / f"faceqan-{os.getpid()}-{tmp_path.name}"
    target.mkdir()
    yield target
    shutil.rmtree(target)


def inspect(source: Path, *given, **others) -> str:
    return copying.inspect(LocalFile(source), *given, **others)


def place(source: Path, *given) -> None:
    copying.place(LocalFile(source), *given)


def do(source: Path, target: Path, mode: str, **others) -> str:
    state = state_of(source)
    found = inspect(source, target, mode, state, **others)
    place(source, target, mode, state, found)
    return found


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_copy_and_move(source: Path, folder: Path, mode: str) -> None:
    target, before = folder / "sub" / "a.jpg", state_of(source)
    assert do(source, target, mode) == PENDING
    assert target.read_bytes() == b"a photo"
    assert state_of(target) == before, "its time stays, so a run knows it again"
    assert source.exists() == (mode == "copy")
    assert list(target.parent.iterdir()) == [target]
    assert inspect(source, target, mode, before) == THERE


@posix
def test_links(source: Path, tmp_path: Path) -> None:
    hard, soft = tmp_path / "out" / "hard.jpg", tmp_path / "out" / "soft.jpg"
    do(source, hard, "link")
    do(source, soft, "symlink")
    assert hard.samefile(source)
    assert soft.readlink() == source
    for target, mode in ((hard, "link"), (soft, "symlink")):
        assert inspect(source, target, mode, state_of(source)) == THERE


@posix
def test_no_hard_link_leads_to_another_file_system(source: Path, folder: Path) -> None:
    if folder.name == "out":
        pytest.skip("the same file system")
    with pytest.raises(NotPlaced, match="another file system"):
        do(source, folder / "a.jpg", "link")


@pytest.mark.parametrize("mode", MODES)
def test_what_is_there_stays(source: Path, folder: Path, mode: str) -> None:
    folder.mkdir(exist_ok=True)
    target = folder / "a.jpg"
    for there in (b"another", b"A PHOTO"):
        target.write_bytes(there)
        with pytest.raises(NotPlaced, match="another file is there"):
            do(source, target, mode)
        # and when it comes there in the last moment
        if mode != "link" or folder.name == "out":
            with pytest.raises(FileExistsError):
                place(source, target, mode, state_of(source), PENDING)
        assert target.read_bytes() == there
        assert source.read_bytes() == b"a photo"
        assert not part_of(target).exists()


@pytest.mark.parametrize("mode", MODES)
def test_an_equal_file_is_as_good_and_costs_no_photo(source: Path, folder: Path, mode: str) -> None:
    folder.mkdir(exist_ok=True)
    target = folder / "a.jpg"
    target.write_bytes(b"a photo")
    assert do(source, target, mode) == THERE
    assert source.exists()
    # unless it is this tool's own copy
    began = do(source, target, mode, began=lambda: True)
    assert began == (FINISH if mode == "move" else THERE)
    assert source.exists() == (mode != "move")
    assert target.read_bytes() == b"a photo"


def test_a_move_into_its_own_folder_is_none(source: Path) -> None:
    assert do(source, source, "move", began=lambda: True) == THERE
    assert source.exists()


@posix
def test_the_same_folder_by_another_name(source: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(source.parent)
    assert do(source, tmp_path / "alias" / "a.jpg", "move", began=lambda: True) == THERE
    assert source.exists()


@posix
def test_a_move_cut_off_between_its_two_names(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.jpg"
    os.link(source, target)
    assert do(source, target, "move") == FINISH
    assert target.read_bytes() == b"a photo"
    assert not source.exists()


def test_photos_that_changed_are_left_alone(source: Path, folder: Path) -> None:
    state = state_of(source)
    source.write_bytes(b"A photo")
    os.utime(source, ns=(0, 0))
    for mode in MODES:
        with pytest.raises(NotPlaced, match="changed since it was scored"):
            inspect(source, folder / "a.jpg", mode, state)
    # its time hides it: found out while it is copied
    os.utime(source, ns=(state.mtime_ns, state.mtime_ns))
    assert inspect(source, folder / "a.jpg", "copy", state) == PENDING
    with pytest.raises(NotPlaced, match="changed since it was scored"):
        place(source, folder / "a.jpg", "copy", state, PENDING)
    assert not (folder / "a.jpg").exists()
    # touched, but the same
    source.write_bytes(b"a photo")
    os.utime(source, ns=(5, 5))
    assert inspect(source, folder / "a.jpg", "copy", state) == PENDING


def test_a_bad_copy_is_noticed_before_the_photo_goes(
    source: Path, folder: Path, monkeypatch
) -> None:
    if folder.name == "out":
        pytest.skip("nothing is copied on one file system")
    good = sha256_of

    def bad_disk(file: Path) -> str:
        return "0" * 64 if file.suffix == ".part" else good(file)

    monkeypatch.setattr(copying, "sha256_of", bad_disk)
    with pytest.raises(NotPlaced, match="copy differs"):
        do(source, folder / "a.jpg", "move")
    assert source.read_bytes() == b"a photo"
    assert list(folder.iterdir()) == []


@posix
def test_a_photo_that_may_not_go_is_not_doubled(source: Path, folder: Path, monkeypatch) -> None:
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == source:
            raise PermissionError(13, "Permission denied")
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(NotPlaced, match="Permission denied"):
        do(source, folder / "a.jpg", "move")
    assert source.exists()
    assert not (folder / "a.jpg").exists()


def test_file_systems_without_hard_links(source: Path, folder: Path, monkeypatch) -> None:
    def link(*_args, **_options) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    twin = source.with_name("b.jpg")
    twin.write_bytes(b"another photo")
    do(source, folder / "a.jpg", "move")
    do(twin, folder / "b.jpg", "copy")
    assert (folder / "a.jpg").read_bytes() == b"a photo"
    assert (folder / "b.jpg").read_bytes() == b"another photo"
    with pytest.raises(FileExistsError):
        place(twin, folder / "a.jpg", "move", state_of(twin), PENDING)
    assert (folder / "a.jpg").read_bytes() == b"a photo"


@posix
def test_links_are_followed_to_copy_and_never_moved(source: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jpg"
    link.symlink_to(source)
    do(link, tmp_path / "out" / "copy.jpg", "copy")
    do(link, tmp_path / "out" / "hard.jpg", "link")
    assert (tmp_path / "out/copy.jpg").read_bytes() == b"a photo"
    assert (tmp_path / "out/hard.jpg").samefile(source)
    assert not (tmp_path / "out/hard.jpg").is_symlink()
    with pytest.raises(NotPlaced, match="it is a link"):
        do(link, tmp_path / "out" / "moved.jpg", "move")


@pytest.mark.parametrize(
    "path", ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "", ".", "..", "a\0b.jpg"]
)
def test_paths_that_lead_out(tmp_path: Path, path: str) -> None:
    with pytest.raises(NotPlaced):
        place_below(tmp_path, path)


def test_paths_that_only_look_odd(tmp_path: Path) -> None:
    for path in ("..a/b..jpg", "a/ b.jpg", "-.jpg", "%2E%2E.jpg", "~/x.jpg"):
        assert place_below(tmp_path, path) == tmp_path / path


@posix
def test_links_that_lead_out(tmp_path: Path) -> None:
    inside = tmp_path / "out"
    check_inside(inside, inside / "a" / "b.jpg")
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    (inside / "nowhere").symlink_to(tmp_path / "gone")
    (inside / "within").symlink_to(inside / "real")
    (inside / "real").mkdir()
    for bad in ("link/a.jpg", "link/sub/a.jpg", "nowhere/a.jpg", "nowhere/b/a.jpg"):
        with pytest.raises(NotPlaced, match="leads out"):
            check_inside(inside, inside / bad)
    for good in ("a.jpg", "real/a.jpg", "within/a.jpg", "new/sub/a.jpg"):
        check_inside(inside, inside / good)
    # the folder itself may be reached by a link
    (tmp_path / "alias").symlink_to(inside)
    check_inside(tmp_path / "alias", tmp_path / "alias" / "a.jpg")


def test_sources_that_are_none(source: Path, tmp_path: Path) -> None:
    state = state_of(source)
    with pytest.raises(NotPlaced, match="gone"):
        inspect(tmp_path / "x.jpg", tmp_path / "y.jpg", "copy", state)
    with pytest.raises(NotPlaced, match="no file"):
        inspect(source.parent, tmp_path / "y.jpg", "copy", None)
    # gone, and another one is where it would have been moved to
    (tmp_path / "y.jpg").write_bytes(b"a phot!")
    with pytest.raises(NotPlaced, match="gone"):
        inspect(tmp_path / "x.jpg", tmp_path / "y.jpg", "move", state)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_too_large_for_a_photo_is_not_read(
    source: Path, folder: Path, mode: str, monkeypatch
) -> None:
    with source.open("r+b") as file:
        file.truncate((2 << 30) + 1)  # takes no room on the disk
    found = source.stat()

    def never(*_: object) -> str:
        raise AssertionError("it was read")

    monkeypatch.setattr(copying, "sha256_of", never)
    for state in (None, FileState(found.st_size, found.st_mtime_ns)):
        with pytest.raises(NotPlaced, match=r"2,147,483,649 bytes, more than .* it stays"):
            inspect(source, folder / "a.jpg", mode, state)


def test_a_copy_that_is_there_is_read_once(source: Path, tmp_path: Path, monkeypatch) -> None:
    target, state, read = tmp_path / "out" / "a.jpg", state_of(source), []

    def reading(file: Path) -> str:
        read.append(file)
        return sha256_of(file)

    do(source, target, "copy")
    monkeypatch.setattr(copying, "sha256_of", reading)
    assert inspect(source, target, "copy", state) == THERE
    assert read == [target], "the run knows the photo's checksum"
    assert inspect(source, target, "move", state, lambda: True) == FINISH
    assert {*read} == {source, target}, "before the photo goes, both are read"


def test_a_file_where_a_folder_is_needed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    for mode in MODES:
        with pytest.raises(NotPlaced):
            do(source, tmp_path / "out" / "a.jpg", mode)
        with pytest.raises(NotPlaced):
            do(source, tmp_path / "out" / "sub" / "a.jpg", mode)
    assert source.exists()
