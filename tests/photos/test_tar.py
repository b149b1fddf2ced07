"""Tar shards: what is taken, what is refused, what damage costs."""

from __future__ import annotations

import io
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import PhotoError, SettingsError
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos, locate
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.photos.tar import TarArchive
from tests.photos.makers import picture, write_tar


def contents(archive: Path) -> tuple[dict[str, bytes], str]:
    """Return what a tar gives, and what is wrong with it."""
    found = {}
    try:
        for name, content in TarArchive(LocalFile(archive)).members():
            found[name] = content.read()[0]
    except PhotoError as error:
        return found, error.reason
    return found, ""


def test_members_are_photos_of_a_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    long = "x" * 150 + "/" + "ü" * 90 + ".png"
    members = {"./ann/1.jpg": picture(1), "ann/1.json": b"{}", "ann/.2.jpg": b"", long: picture(2)}
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards/a.tar", members)
    for inputs in (["shards/a.tar"], ["shards/*.tar"], [tmp_path / "shards/a.tar"]):
        sources = list(find_photos(inputs))
        assert [source.path for source in sources] == [
            "shards/a.tar/ann/1.jpg",
            f"shards/a.tar/{long}",
        ]
        assert {source.root for source in sources} == {str(tmp_path)}
    for source, shade in zip(sources, (1, 2), strict=True):
        again = locate(source.root, source.path)
        for one in (source, again):
            copy = pickle.loads(pickle.dumps(one))
            photo = decode(copy, max_pixels=100)
            assert photo.pixels[0, 0, 0] == shade
            assert copy.content.state() == source.content.state()
    assert len(pickle.dumps(source)) < 1000
    # a list names members as `filter` prints them
    listed = find_photos(["-"], stdin=io.BytesIO(source.place.encode()))
    assert [item.path for item in listed] == [source.path]


def test_a_folder_of_archives_says_how_to_give_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"1.jpg": picture()})
    with pytest.raises(SettingsError, match=r"holds no photos, but 1 archives.*\*\.tar"):
        list(find_photos([tmp_path]))
    (tmp_path / "b.jpg").write_bytes(picture())
    assert [source.path for source in find_photos([tmp_path])] == ["b.jpg"]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.zip"])
def test_compressed_archives_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SettingsError, match="unpack it"):
        list(find_photos([tmp_path / name]))


def test_a_disguised_gzip_is_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    assert contents(tmp_path / "a.tar") == (
        {},
        "a tar compressed by gzip, which cannot be read in places; unpack it to a plain tar",
    )


def test_hostile_names_and_links_are_left_out(tmp_path: Path) -> None:
    good = picture(7)
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../up.jpg", "/top.jpg", "a/../../b.jpg", "a\\b.jpg", "ok.jpg", "ok.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(good)
            tar.addfile(info, io.BytesIO(good))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"{kind!r}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    found, reason = contents(path)
    assert found == {"ok.jpg": good}
    assert "left out 4 whose names lead out of it, e.g. '../up.jpg'" in reason
    assert "left out 1 whose names came before" in reason
    assert "left out 4 that are links or no plain files" in reason
    sources = list(find_photos([path]))
    assert [source.path.rpartition("/")[2] for source in sources] == ["ok.jpg", "a.tar"]
    with pytest.raises(PhotoError, match="lead out of it"):
        decode(sources[1], max_pixels=100)
    for name in ("../up.jpg", "nothing.jpg"):
        with pytest.raises(PhotoError):
            TarArchive(LocalFile(path)).find(name)


def test_what_comes_before_damage_is_used(tmp_path: Path) -> None:
    members = {f"{number}.jpg": picture(number) for number in range(5)}
    whole = write_tar(tmp_path / "a.tar", members).read_bytes()
    path = tmp_path / "cut.tar"
    step = len(whole) // 60
    for length in range(512, len(whole), step):
        path.write_bytes(whole[:length])
        found, reason = contents(path)
        assert found.items() <= members.items()
        # nothing is wrong with a tar that lacks zeros at its end alone
        assert reason or found == members or length % 512 == 0
        if found and reason:
            assert f"the {len(found)} photos before that are used" in reason
    path.write_bytes(whole[: whole.index(b"3.jpg\0")] + b"?" * 2000)
    found, reason = contents(path)
    assert list(found) == ["0.jpg", "1.jpg", "2.jpg"]
    assert "damaged" in reason


def test_a_tar_that_changes_meanwhile_is_not_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": picture(1)})
    (source,) = find_photos([path])
    write_tar(path, {"0.jpg": picture(0), "1.jpg": picture(1)})
    with pytest.raises(PhotoError, match="changed meanwhile"):
        source.content.read()
    assert locate(source.root, source.path).content.read()[0] == picture(1)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_give_clean_errors(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tar"
    members = {"a.jpg": b"1234", "b/" + "c" * 120 + ".jpg": b"5" * 600}
    whole = bytearray(write_tar(path, members).read_bytes()[:5120])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + 8] = data.draw(st.binary(min_size=1, max_size=8))
    path.write_bytes(data.draw(st.one_of(st.binary(max_size=1500), st.just(bytes(whole)))))
    contents(path)
    locate(str(path.parent), "any.tar/a.jpg")


def test_webdataset_agrees(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    pattern = tmp_path / "shard-%03d.tar"
    samples = {f"{number:05d}": picture(number) for number in range(7)}
    with wds.ShardWriter(str(pattern), maxcount=3, verbose=0) as sink:
        for key, data in samples.items():
            sink.write({"__key__": key, "jpg": data, "cls": int(key) // 2})
    sources = list(find_photos([str(tmp_path / "*.tar")]))
    assert len({source.path.split("/")[-3] for source in sources}) == 3
    read = {"/".join(source.path.split("/")[-2:]): source.content.read()[0] for source in sources}
    assert read == {f"{int(key) // 2:05d}/{key}.jpg": data for key, data in samples.items()}
    for source in sources:
        assert locate(source.root, source.path).content.read() == source.content.read()


def test_webdataset_samples_of_several_photos(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    path = tmp_path / "a.tar"
    with wds.TarWriter(str(path)) as sink:
        sink.write({"__key__": "0", "a.jpg": picture(1), "cls": 12, "z.png": picture(2, "PNG")})
        sink.write({"__key__": "1", "jpg": picture(3), "txt": "no label"})
        sink.write({"__key__": "ann/2", "jpg": picture(4), "cls": 7})
    assert list(contents(path)[0]) == ["00012/0.a.jpg", "00012/0.z.png", "1.jpg", "00007/ann/2.jpg"]


@pytest.mark.parametrize(
    ("content", "folder"),
    [
        (b'{"label": 7}', "00007/"),
        (b'{"label": 7.0, "identity": "x"}', "00007/"),
        (b'{"identity": "Ann Lee"}', "Ann Lee/"),
        (b'{"person": "a/../b"}', "a%2F..%2Fb/"),
        (b'{"subject": ".."}', "%2E%2E/"),
        (b'{"label": "", "subject": "ann"}', "ann/"),
        (b'{"label": "\\ud800"}', "%D800/"),
        (b'{"label": [7], "person": true}', ""),
        (b'{"label": 1.5}', ""),
        (b'{"caption": "ann"}', ""),
        (b'["label"]', ""),
        (b'{"label": 1', ""),
        (b"[" * 60_000, ""),
        (b'{"label": 7, "x": "' + b"x" * 70_000 + b'"}', ""),
        (b"\xff", ""),
    ],
)
def test_a_label_in_json(tmp_path: Path, content: bytes, folder: str) -> None:
    members = {"k/b.jpg": picture(1), "k/b.json": content, "c.jpg": picture(2)}
    path = write_tar(tmp_path / "a.tar", members)
    assert list(contents(path)[0]) == [f"{folder}k/b.jpg", "c.jpg"]
    (source, _) = find_photos([path])
    assert locate(source.root, source.path).content.read()[0] == picture(1)


def test_a_cls_counts_before_json(tmp_path: Path) -> None:
    members = {"b.JSON": b'{"label": "ann"}', "b.jpg": picture(1), "b.cls": b"3"}
    assert list(contents(write_tar(tmp_path / "a.tar", members))[0]) == ["00003/b.jpg"]
    members["b.cls"] = b"no number"
    assert list(contents(write_tar(tmp_path / "a.tar", members))[0]) == ["ann/b.jpg"]


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        (b"7", "00007/"),
        (b" 123456\n", "123456/"),
        (b"-1", "-0001/"),
        (b"", ""),
        (b"ann", ""),
        (b"../7", ""),
        (b"1.5", ""),
        (b"\xff\xfe", ""),
        ("\u0663".encode(), ""),  # a digit elsewhere
        (b"9" * 19, ""),
        (b"7" + b" " * 1000, ""),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_label_is_a_folder(tmp_path: Path, label: bytes, folder: str, first: bool) -> None:
    photos = [picture(1), picture(2), picture(3)]
    sample = {"./b.jpg": photos[1]}
    sample = {"b.CLS": label, **sample} if first else {**sample, "b.json": b"{}", "b.CLS": label}
    path = write_tar(tmp_path / "a.tar", {"a.jpg": photos[0], **sample, "c.jpg": photos[2]})
    names = ["a.jpg", f"{folder}b.jpg", "c.jpg"]
    assert contents(path) == (dict(zip(names, photos, strict=True)), "")
    for name, photo in zip(names, photos, strict=True):
        assert TarArchive(LocalFile(path)).find(name).read()[0] == photo


def test_labels_are_of_the_files_beside_them(tmp_path: Path) -> None:
    members = {"a.cls": b"1", "a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c", "b.cls": b"2"}
    path = write_tar(tmp_path / "a.tar", members)
    assert list(contents(path)[0]) == ["00001/a.jpg", "b.jpg", "c.jpg"]


def test_a_link_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("a.cls")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(info)
        info = tarfile.TarInfo("a.jpg")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"5"))
    assert contents(path) == ({"a.jpg": b"5"}, "")


def test_one_key_with_two_labels_is_two_photos(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in [("0.jpg", b"a"), ("0.cls", b"1"), ("x", b""), ("0.jpg", b"b"),
                           ("0.cls", b"2"), ("00001/0.jpg", b"c")]:  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found, reason = contents(path)
    assert found == {"00001/0.jpg": b"a", "00002/0.jpg": b"b"}
    assert "left out 1 whose names came before, e.g. '00001/0.jpg'" in reason


def test_photos_keep_the_names_they_have_in_the_tar(tmp_path: Path) -> None:
    """Runs and lists that were made before, and people who look into a tar, name them so."""
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"a", "0.cls": b"3", "ann/1.jpg": b"b"})
    (source,) = find_photos([path / "0.jpg"])
    assert source.path.endswith("a.tar/0.jpg")
    assert source.content.read()[0] == b"a"
    for name in ("1.jpg", "00004/0.jpg"):
        with pytest.raises(PhotoError, match=r"not in a\.tar"):
            TarArchive(LocalFile(path)).find(name)


def test_a_damaged_label_costs_no_photo(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"a", "0.cls": b"3"})
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"0.cls") + 512])
    found, reason = contents(path)
    assert found == {"0.jpg": b"a"}
    assert "the 1 photos before that are used" in reason


@pytest.mark.parametrize("name", ["{:06d}.jpg", "frame.{:06d}.jpg"])
def test_photos_come_while_headers_are_read(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / "a.tar", {name.format(n): b"1" for n in range(3000)})
    members = TarArchive(LocalFile(path)).members()
    tracemalloc.start()
    try:
        next(members)
        started = tracemalloc.get_traced_memory()[0]
        list(zip(range(2000), members, strict=False))
        grown = tracemalloc.get_traced_memory()[0] - started
    finally:
        tracemalloc.stop()
    assert started < 200_000
    assert grown < 2000 * 250  # names that were seen
