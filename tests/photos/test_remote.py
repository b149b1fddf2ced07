"""URLs: fsspec's memory, and a server on this machine."""

from __future__ import annotations

import http.server
import io
import pickle
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from faceqan_toolkit.errors import MissingDependency, PhotoError, SettingsError
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos, locate
from faceqan_toolkit.photos.stores import is_url
from tests.photos.makers import insightface_rec, picture, write_tar

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory() -> Iterator:
    from faceqan_toolkit.photos import stores

    files = fsspec.filesystem("memory")
    stores._state.cache_clear()
    yield files
    files.rm("/", recursive=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of the folder `tmp_path/www` that gives parts of files."""
    pytest.importorskip("aiohttp")
    (tmp_path / "www").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def send_head(self):  # type: ignore[no-untyped-def]
            wanted = self.headers.get("Range")
            if not wanted or not Path(self.translate_path(self.path)).is_file():
                return super().send_head()
            data = Path(self.translate_path(self.path)).read_bytes()
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last or len(data)) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            return io.BytesIO(part)

        def end_headers(self) -> None:
            self.send_header("Accept-Ranges", "bytes")
            super().end_headers()

    handler = partial(Handler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_folders_files_and_patterns(memory) -> None:
    photos = {"a.jpg": picture(1), "sub/b.png": picture(2, "PNG"), "sub/100%41.jpg": picture(3)}
    for name, data in {**photos, "notes.txt": b"", ".hidden/c.jpg": b""}.items():
        memory.pipe_file(f"/set/{name}", data)
    for given in ("memory://set", "memory://set/"):
        sources = list(find_photos([given]))
        assert [source.path for source in sources] == ["a.jpg", "sub/100%2541.jpg", "sub/b.png"]
        assert {source.root for source in sources} == {"memory://set"}
    for source in sources:
        again = pickle.loads(pickle.dumps(locate(source.root, source.path)))
        assert again.content == source.content
        name = again.place.removeprefix("memory://set/")
        data, state = again.content.read()
        assert data == photos[name]
        assert (state.size, state.mtime_ns > 0) == (len(data), True)
    (one,) = find_photos(["memory://set/sub/b.png"])
    assert (one.root, one.path) == ("memory://set/sub", "b.png")
    assert [source.path for source in find_photos(["memory://set/sub/*.jpg"])] == ["100%2541.jpg"]
    listed = "# all\nmemory://set/a.jpg\n"
    assert [s.path for s in find_photos(["-"], stdin=io.BytesIO(listed.encode()))] == ["a.jpg"]


def test_archives_behind_urls(memory, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"x/1.jpg": picture(1)}).read_bytes()
    memory.pipe_file("/s/a.tar", tar)
    insightface_rec(tmp_path / "t.rec", [[picture(5)]])
    for name in ("t.rec", "t.idx"):
        memory.pipe_file(f"/s/{name}", (tmp_path / name).read_bytes())
    with pytest.raises(SettingsError, match="2 archives or videos"):
        list(find_photos(["memory://s"]))
    sources = list(find_photos(["memory://s/*.tar", "memory://s/t.rec"]))
    assert [source.path for source in sources] == ["a.tar/x/1.jpg", "t.rec/00000/00000001.jpg"]
    for source, shade in zip(sources, (1, 5), strict=True):
        again = pickle.loads(pickle.dumps(locate(source.root, source.path)))
        for one in (source, again):
            assert decode(one, max_pixels=100).pixels[0, 0, 0] == shade


def test_a_server(server: str, tmp_path: Path) -> None:
    (tmp_path / "www/a b.jpg").write_bytes(picture(9))
    write_tar(tmp_path / "www/a.tar", {"x/1.jpg": picture(4), "x/2.jpg": picture(6)})
    (source,) = find_photos([f"{server}/a%20b.jpg"])
    assert decode(source, max_pixels=100).pixels[0, 0, 0] == 9
    shades = [
        decode(pickle.loads(pickle.dumps(source)), max_pixels=100).pixels[0, 0, 0]
        for source in find_photos([f"{server}/a.tar"])
    ]
    assert shades == [4, 6]
    (gone,) = find_photos([f"{server}/gone.jpg"])
    with pytest.raises(PhotoError) as caught:
        decode(gone, max_pixels=100)
    assert caught.value.status == "missing"
    (lost,) = find_photos(["http://127.0.0.1:9/a.jpg"])
    with pytest.raises(PhotoError) as caught:
        decode(lost, max_pixels=100)
    assert caught.value.status == "unreachable"


def test_what_cannot_be_had_is_told(memory, monkeypatch) -> None:
    for url, reason in (
        ("memory://nowhere", "no such file"),
        ("memory://nowhere/*.jpg", "nothing matches"),
        ("nosuchkind://a", "nosuchkind"),
        ("s3://key:secret@bucket/a", "password"),
        ("github://x/a.jpg", "github://x/a.jpg: "),
        ("zip://x/a.jpg", "zip://x/a.jpg: "),
    ):
        with pytest.raises((SettingsError, MissingDependency), match=reason):
            list(find_photos([url]))
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingDependency, match=r"faceqan-toolkit\[remote\]"):
        list(find_photos(["memory://a"]))


def test_urls_and_paths() -> None:
    assert all(is_url(text) for text in ("s3://a", "simplecache::s3://a", "https://a/b"))
    assert not any(is_url(text) for text in ("/a/b", "C:\\a", "a://"[:2], "C:/x", "./a", "x:y"))
