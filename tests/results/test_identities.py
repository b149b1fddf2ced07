"""Who a photo shows, by its path or by a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.results.identities import LAST, IdentityRule, identities_of, main_faces
from faceqan_toolkit.types import PhotoSource, Record
from tests.ledgers import write_run
from tests.photos.makers import picture, write_tar


def photos(*paths: str, root: str = "/p") -> list[PhotoSource]:
    return [PhotoSource(root, path, LocalFile(Path(root, path))) for path in paths]


@pytest.mark.parametrize(
    ("path", "first", "second", "last"),
    [
        ("1.jpg", None, None, None),
        ("ann/1.jpg", "/p/ann", None, "/p/ann"),
        ("ann/clip/1.jpg", "/p/ann", "/p/ann/clip", "/p/ann/clip"),
        ("ann/a.b/c/1.jpg", "/p/ann", "/p/ann/a.b", "/p/ann/a.b/c"),
        # archives count from their inside, and shards are one set
        ("s/t-001.tar/1.jpg", None, None, None),
        ("t-1.tar/00007/bob/1.jpg", "/p/t-#.tar/00007", "/p/t-#.tar/00007/bob", ...),
        ("s/t-002.TAR/00007/1.jpg", "/p/s/t-#.TAR/00007", None, ...),
        ("train.rec/00001/00000001.jpg", "/p/train.rec/00001", None, ...),
        ("x-0-of-2.parquet/column=img/3/0.jpg", "/p/x-#-of-#.parquet/3", None, ...),
        ("x.parquet/column=img/0.jpg", None, None, None),
        ("ann/a.tar/b.tar/c/1.jpg", "/p/ann/a.tar/b.tar", "/p/ann/a.tar/b.tar/c", ...),
        (".tar/1.jpg", "/p/.tar", None, ...),
        # a video counts as a folder
        ("ann/clip.mp4/00000025-1.000s.png", "/p/ann", "/p/ann/clip.mp4", "/p/ann/clip.mp4"),
        ("clip.mp4/00000025-1.000s.png", "/p/clip.mp4", None, "/p/clip.mp4"),
    ],
)
def test_folders_of_a_path(path, first, second, last) -> None:
    last = (second or first) if last is ... else last
    for level, expected in ((1, first), (2, second), (LAST, last), (50, None)):
        ((found_path, found),), people = identities_of(photos(path), IdentityRule(level))
        assert (found_path, found) == (path, expected)
        assert (people.number, people.nobody) == ((1, 0) if expected else (0, 1))


def test_shards_are_one_set_and_a_label_is_one_person(tmp_path: Path) -> None:
    for number in (1, 2):
        members = {f"{who}/{number}.{end}": data
                   for who, label in (("ann", b"3"), ("bob", b"4"))
                   for end, data in (("jpg", picture(number)), ("cls", label))}  # fmt: skip
        write_tar(tmp_path / f"train-{number:03d}.tar", members)
    write_tar(tmp_path / "other.tar", {"1.jpg": picture(9), "1.json": b'{"label": 3}'})
    found, people = identities_of(find_photos([str(tmp_path / "*.tar")]), IdentityRule())
    assert people.number == 3
    assert len(found) == 5
    by_person: dict[str | None, list[str]] = {}
    for path, identity in found:
        by_person.setdefault(identity, []).append(path.rpartition(".tar/")[2])
    assert sorted(by_person.values()) == [
        ["00003/1.jpg"], ["00003/ann/1.jpg", "00003/ann/2.jpg"],
        ["00004/bob/1.jpg", "00004/bob/2.jpg"],
    ]  # fmt: skip


def test_a_table(tmp_path: Path) -> None:
    table = tmp_path / "who.csv"
    table.write_text("path,identity\na/1.jpg,ann\n/p/b/2.jpg,ann\nc/3.jpg,\n", encoding="utf-8")
    found, people = identities_of(
        photos("a/1.jpg", "b/2.jpg", "c/3.jpg", "d/4.jpg"), IdentityRule.parse(str(table))
    )
    assert [identity for _, identity in found] == ["ann", "ann", None, None]
    assert people.text() == (
        f"identity = column identity of {table}, 1 person; 2 photos without an identity: left out"
    )
    table.write_text("path,who\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="needs the columns path and identity"):
        identities_of(photos("a/1.jpg"), IdentityRule(table=table))


def test_what_is_told() -> None:
    def told(*sources: PhotoSource, level: int = 1) -> str:
        return identities_of(sources, IdentityRule(level))[1].text()

    assert told(*photos("a/x/1.jpg", "b/1.jpg", "b/2.jpg")) == "identity = first folder, 2 people"
    assert told(*photos("1.jpg", "b/2.jpg")) == (
        "identity = first folder, 1 person; 1 photo without an identity: left out"
    )
    assert told(*photos("people/a/1.jpg", "people/b/1.jpg")) == (
        "identity = first folder, 1 person; all lie in one folder: --identity 2 would find 2 people"
    )
    assert told(*photos("people/a/1.jpg", "people/b/1.jpg"), level=LAST) == (
        "identity = last folder, 2 people"
    )
    twice = photos("a/1.jpg", "b/1.jpg") + photos("a/2.jpg", root="/q")
    assert told(*twice) == (
        "identity = first folder, 3 people; 1 of them have the same folder name as another one, "
        "below another root; --identity FILE.csv can join them"
    )
    assert told() == "identity = first folder, 0 people"


@pytest.mark.parametrize(
    ("text", "title"),
    [(None, "first folder"), ("first", "first folder"), ("1", "first folder"), ("3", "folder 3"),
     ("last", "last folder")],
)  # fmt: skip
def test_rules_by_name(text: str | None, title: str) -> None:
    assert IdentityRule.parse(text).title == title


@pytest.mark.parametrize("text", ["0", "101", "99999999999", "-1", "nothing.csv", "", "First"])
def test_rules_that_are_none(text: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="identity is"):
        IdentityRule.parse(text)


def test_main_faces_tell_photos_of_several_people(tmp_path: Path) -> None:
    records = [
        Record("a/1.jpg", "/p", 0, "ok", quality=0.5, sha256="x"),
        Record("a/2.jpg", "/p", 1, "ok", quality=0.5, sha256="y"),
        Record("a/2.jpg", "/p", 2, "ok", quality=0.9, sha256="y"),
        Record("a/clip/3.jpg", "/p", 0, "ok", quality=0.5, sha256="x"),
        Record("b/4.jpg", "/p", 0, "ok", quality=0.5, sha256="y"),
        Record("b/5.jpg", "/p", 0, "unscorable", sha256="z"),
        Record("6.jpg", "/p", 0, "ok", quality=0.5, sha256="x"),
        Record("c/7.jpg", "/p", 0, "ok", quality=0.5),
        Record("d/8.jpg", "/p", 0, "ok", quality=0.5),
    ]
    rows, people = main_faces(write_run(tmp_path / "run", records), IdentityRule())
    assert [(row["path"], row["identity"], row["shared"], row["quality"]) for row in rows] == [
        ("6.jpg", None, False, 0.5),
        ("a/1.jpg", "/p/a", False, 0.5),
        ("a/2.jpg", "/p/a", True, 0.5),
        ("a/clip/3.jpg", "/p/a", False, 0.5),
        ("b/4.jpg", "/p/b", True, 0.5),
        ("c/7.jpg", "/p/c", False, 0.5),
        ("d/8.jpg", "/p/d", False, 0.5),
    ]
    assert (people.number, people.nobody) == (4, 1)
