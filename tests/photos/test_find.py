"""Photos that are found, and found again by root and path."""

from __future__ import annotations

import io
import os
import pickle
import sys
from pathlib import Path

import pytest

from faceqan_toolkit.errors import PhotoError, SettingsError
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos, is_there, locate
from tests.conftest import SAMPLES, in_every_encoding


def found(*inputs: str | Path, **options) -> list[str]:
    return [source.path for source in find_photos(inputs, **options)]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_folders_are_searched_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "sub/c.webp", "sub/deep/d.heic", "notes.txt", "e.avif")
    assert found(tmp_path) == ["a.png", "b.JPG", "e.avif", "sub/c.webp", "sub/deep/d.heic"]
    (source, *_) = find_photos([tmp_path])
    assert (source.root, source.place) == (str(tmp_path), f"{tmp_path}/a.png")


def test_hidden_ones_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, ".a.jpg", ".cache/b.jpg", "c.jpg")
    assert found(tmp_path) == ["c.jpg"]


def test_run_folders_among_photos_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sub/run/run.json", "sub/run/records/part", "sub/run/crops/b.png")
    touch(tmp_path, "not_one/run.json", "not_one/c.jpg")
    assert found(tmp_path) == ["a.jpg", "not_one/c.jpg"]
    assert found(tmp_path / "sub/run/crops") == ["b.png"]
    with pytest.raises(SettingsError, match="is a run folder"):
        found(tmp_path / "sub/run")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_that_loop_end(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone.jpg").symlink_to("nothing.jpg")
    (tmp_path / "a_link").symlink_to("real")
    assert found(tmp_path) == ["gone.jpg", "real/a.jpg"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_linked_folders_elsewhere_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.jpg")
    (tmp_path / "root").mkdir()
    for name in ("one", "two"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "root") == ["one/a.jpg"]


def test_a_folder_named_as_a_photo_is_both(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg/inside.jpg")
    assert found(tmp_path) == ["x.jpg", "x.jpg/inside.jpg"]


def test_a_folder_that_cannot_be_listed_is_not_lost(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "secret/a.jpg", "b.jpg")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(tmp_path) == ["b.jpg", "secret"]


def test_files_are_relative_to_here_or_to_the_top(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "here/a.dat", "there/b.jpg")
    monkeypatch.chdir(tmp_path / "here")
    assert found("a.dat") == ["a.dat"]
    (source,) = find_photos(["../there/b.jpg"])
    assert source.root == tmp_path.anchor
    assert source.path == (tmp_path / "there/b.jpg").relative_to(tmp_path.anchor).as_posix()


@pytest.mark.skipif(sys.platform != "linux", reason="paths are any bytes on Linux only")
def test_roots_that_are_no_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    touch(folder, "a.jpg")
    (source,) = find_photos([folder])
    assert source.root == f"{tmp_path}/%FF"
    assert source.content.read()[0] == b"x"


def test_patterns(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.png", "b/3.jpg", "a/b.jpg/4.jpg")
    monkeypatch.chdir(tmp_path)
    assert found("*/*.jpg") == ["a/1.jpg", "b/3.jpg"]
    assert found("**/*.jpg") == ["a/1.jpg", "a/b.jpg/4.jpg", "b/3.jpg"]
    assert found("a/[12].*") == ["a/1.jpg", "a/2.png"]
    touch(tmp_path, "[12].jpg")
    assert found("[12].jpg") == ["[12].jpg"]


@pytest.mark.parametrize("given", ["nowhere", "*.jpg", "@nowhere.txt"])
def test_what_is_not_there(tmp_path: Path, monkeypatch, given: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"nowhere|jpg"):
        found(given)


def test_lists(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "data/a.jpg", "data/more/b.jpg", "c.jpg")
    (tmp_path / "data/list.txt").write_bytes(
        b"\xef\xbb\xbfa.jpg\r\n\r\n# a comment\r\nmore\r\nc.jpg\r\ngone.jpg\r\n"
    )
    monkeypatch.chdir(tmp_path)
    assert found("@data/list.txt") == ["data/a.jpg", "b.jpg", "c.jpg", "gone.jpg"]


def test_names_that_no_file_system_takes_are_missing_photos(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a" * 5000 + "\n" + "b" * 300 + ".tar/c.jpg\n")
    for source in find_photos([f"@{tmp_path / 'list'}"]):
        with pytest.raises(PhotoError):
            decode(source, max_pixels=100)


NAMES = ["a.jpg", "sub/b.jpg", "ä 写真.jpg"]


@pytest.mark.parametrize("data", in_every_encoding("\r\n".join([*NAMES, "# a comment", ""])))
def test_lists_in_every_encoding(tmp_path: Path, monkeypatch, data: bytes) -> None:
    touch(tmp_path, *NAMES, "other.jpg")
    (tmp_path / "list.txt").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    assert found("@list.txt") == NAMES
    assert found("-", stdin=io.BytesIO(data)) == NAMES


def test_names_that_are_no_text_are_found_by_lists(tmp_path: Path, monkeypatch) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        touch(tmp_path, name)
    except OSError:
        pytest.skip("names must be text here")
    monkeypatch.chdir(tmp_path)
    assert found("-", stdin=io.BytesIO(b"caf\xe9.jpg\n")) == ["caf%E9.jpg"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("a.jpg\r\nsub/b.jpg\r\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("/\r\n".encode("utf-16-be"), "UTF-16 without a byte order mark"),
        ("写真/a.jpg\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\xff\xfea\0.\0j", "its mark says UTF-16, but it is not that"),
        (b"a.jpg\0\0b.jpg\0", "NUL bytes"),
        (b"a.jpg\0b.jpg", "NUL bytes"),
        (b"a.jpg\nb.j\0pg\n", "NUL bytes"),
        ((SAMPLES / "hopper.jpg").read_bytes(), "it is a JPEG picture, not text"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, monkeypatch, data: bytes, why: str) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=f"^standard input: .*{why}.* one path a line"):
        found("-", stdin=io.BytesIO(data))
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(SettingsError, match=f"^list.txt: .*{why}"):
        found("@list.txt")


def test_lists_of_find(tmp_path: Path, monkeypatch) -> None:
    """`find . -print0` names the folder itself first; names may have line breaks."""
    names = ["./a.jpg", "./two\nlines.jpg"] if os.name == "posix" else ["./a.jpg"]
    touch(tmp_path, *names)
    monkeypatch.chdir(tmp_path)
    data = "".join(f"{name}\0" for name in (".", *names)).encode()
    expected = ["a.jpg", "two%0Alines.jpg"][: len(names)]
    assert found("-", stdin=io.BytesIO(data)) == expected


@pytest.mark.parametrize("name", ["/", "home", "home/..", "link", "file:///", "file://{home}/**"])
def test_a_list_does_not_bring_a_whole_disk(tmp_path: Path, monkeypatch, name: str) -> None:
    home = tmp_path / "users" / "home"
    touch(home, "photos/a.jpg")
    (tmp_path / "users/link").symlink_to(home)
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.chdir(tmp_path / "users")
    assert found("-", stdin=io.BytesIO(b"home/photos\n")) == ["a.jpg"]
    data = f"# photos\n\nhome/photos\n{name.format(home=home)}\n".encode()
    with pytest.raises(SettingsError, match=r"^standard input, line 4: .*give it outside of"):
        found("-", stdin=io.BytesIO(data))
    if name == "home":
        assert found(home) == ["photos/a.jpg"], "by itself it may be given"


def test_a_line_that_no_name_can_have(tmp_path: Path, monkeypatch) -> None:
    """On Windows bytes that are not UTF-8 are no name."""
    monkeypatch.setattr(os, "fsdecode", lambda raw: raw.decode("utf-8"))
    with pytest.raises(SettingsError, match=r"^standard input, line 2: it is not UTF-8; save"):
        found("-", stdin=io.BytesIO(b"a.jpg\ncaf\xe9.jpg\n"))


def test_what_a_line_is_refused_for_names_the_line(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "run/run.json", "run/records/x")
    (tmp_path / "list").write_text("a.jpg\nrun\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"^list, line 2: .*run is a run folder"):
        found("@list")


@pytest.mark.parametrize("data", [b"a.jpg\nb.jpg\n", b"a.jpg\0b.jpg\0"])
def test_standard_input(tmp_path: Path, monkeypatch, data: bytes) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    monkeypatch.chdir(tmp_path)
    assert found("-", stdin=io.BytesIO(data)) == ["a.jpg", "b.jpg"]


def test_each_photo_once(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    monkeypatch.chdir(tmp_path)
    assert found(tmp_path, "a.jpg", tmp_path) == ["a.jpg", "b.jpg"]


def test_the_same_path_below_two_roots(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.jpg", "two/a.jpg")
    with pytest.raises(SettingsError, match="common parent"):
        found(tmp_path / "one", tmp_path / "two")


def test_what_was_found_is_located(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/50%41.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    for source in find_photos([tmp_path]):
        again = pickle.loads(pickle.dumps(locate(source.root, source.path)))
        assert again == source
        data, state = again.content.read()
        assert state == again.content.state()
        assert again.place == f"{tmp_path}/{data.decode()}"
    assert is_there(again)
    Path(again.place).unlink()
    assert not is_there(again)
