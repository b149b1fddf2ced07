"""Summaries by group against numpy."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.results.groups import (
    COLUMNS,
    LAST,
    Grouping,
    GroupSummary,
    IdentityRule,
    export,
    identities_of,
    main_faces,
    members,
    share_difference,
    summarise,
    wilson,
)
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.settings import FORMATS, Settings
from faceqan_toolkit.types import PhotoSource, Record
from tests.conftest import in_every_encoding
from tests.ledgers import write_run
from tests.photos.makers import picture, write_tar


def scored(path: str, quality: float | None, root: str = "/p") -> Record:
    status = "ok" if quality is not None else "no_face"
    return Record(path, root, None if quality is None else 0, status, quality=quality)


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 20).map(lambda n: n / 20)),
        min_size=1, max_size=25,
    ),
    st.none() | st.sampled_from([0.0, 0.5, 1.1]),
)  # fmt: skip
def test_figures(tmp_path_factory, faces, below) -> None:
    records = [scored(f"{group}/{n:02d}.jpg", q) for n, (group, q) in enumerate(faces)]
    run = write_run(tmp_path_factory.mktemp("r") / "run", records)
    found = summarise(run, below=below)
    assert sorted(item.group for item in found) == sorted({group for group, _ in faces})
    everything = np.array([q for _, q in faces if q is not None])
    for item in found:
        values = np.array([q for group, q in faces if group == item.group and q is not None])
        assert item.faces == len(values)
        assert item.unscored == sum(g == item.group and q is None for g, q in faces)
        quantiles = (item.q05, item.q25, item.median, item.q75, item.q95)
        if not len(values):
            assert (item.mean, *quantiles) == (None,) * 6
            continue
        assert item.mean == pytest.approx(values.mean())
        assert quantiles == pytest.approx(np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]))
        if below is None:
            assert item.share is item.difference is item.below is None
            continue
        count = int((values < below).sum())
        assert (item.below, item.share) == (count, count / len(values))
        assert (item.share_low, item.share_high) == wilson(count, len(values))
        others = (int((everything < below).sum()) - count, len(everything) - len(values))
        if others[1]:
            expected = share_difference((count, len(values)), others)
            assert (item.difference, item.difference_low, item.difference_high) == expected
        else:
            assert item.difference is None
    shares = [item.share for item in found if item.share is not None]
    assert shares == sorted(shares, reverse=True), "who is discarded most comes first"


def test_folders(tmp_path: Path) -> None:
    records = [scored("a.jpg", 0.5), scored("x/y/b.jpg", 0.1), scored("x/y/c.jpg", 0.2)]
    found = summarise(write_run(tmp_path / "one", records))
    assert [(item.group, item.faces) for item in found] == [("x/y", 2), (".", 1)]
    # several roots: folders are told apart by all of their path
    records = [scored("a.jpg", 0.5, "/p"), scored("b.jpg", 0.1, "/q")]
    found = summarise(write_run(tmp_path / "two", records))
    assert [item.group for item in found] == ["/q", "/p"]


def test_members_are_those_that_are_counted(tmp_path: Path) -> None:
    paths = ["top.jpg", "x/a.jpg", "x/b.jpg", "x/y/c.jpg", "none/d.jpg"]
    records = [scored(path, None if path.startswith("none") else 0.5) for path in paths]
    (tmp_path / "groups.csv").write_text("path,who\nx/a.jpg,ann\n/p/x/b.jpg,bob\n")
    run = write_run(tmp_path / "run", records)
    for grouping in (Grouping(), Grouping("who", tmp_path / "groups.csv")):
        found = members(run, grouping)
        assert sorted(found) == sorted(paths)
        counted = {item.group: item.faces + item.unscored for item in summarise(run, grouping)}
        assert Counter(found.values()) == counted
    assert (found["x/a.jpg"], found["x/b.jpg"], found["top.jpg"]) == ("ann", "bob", None)


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    paths = ("a.jpg", "=b.jpg", "c/d.jpg", "e.jpg", "f.jpg")
    records = [scored(path, n / 10) for n, path in enumerate(paths)]
    return write_run(tmp_path / "run", records)


def test_a_column_of_a_file(run: RunInfo, tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text(
        "\ufeffid,path,age,sex\n1,a.jpg,old,=f\n2,'=b.jpg,young,m\n3,/p/c/d.jpg,old,m\n4,e.jpg,,m\n"
        "5,not_here.jpg,old,m\n", encoding="utf-8",
    )  # fmt: skip
    found = {item.group: item.faces for item in summarise(run, Grouping("age", table))}
    assert found == {"old": 2, "young": 1, None: 2}
    found = {item.group: item.faces for item in summarise(run, Grouping("sex", table))}
    assert found == {"=f": 1, "m": 3, None: 1}


def test_a_file_in_every_encoding(run: RunInfo, tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    for data in in_every_encoding("path,age\r\na.jpg,älter\r\nc/d.jpg,若い\r\n"):
        table.write_bytes(data)
        found = {item.group: item.faces for item in summarise(run, Grouping("age", table))}
        assert found == {"älter": 1, "若い": 1, None: 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,sex\na,f\n", "needs the columns path and age; it has path, sex"),
        (b"file,age\na,f\n", "needs the columns path and age"),
        (b"", "needs the columns"),
        (b"path,age\na,1\nb,1\na,2\n", "line 4: a a second time"),
        (b"path,age\n\xff,1\n", "it is not UTF-8; save it as UTF-8"),
        ("path,age\na,1\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"PK\x03\x04\0\0", "it is an Excel, zip or .npz file, not text"),
    ],
)
def test_files_that_make_no_sense(run: RunInfo, tmp_path: Path, content, message: str) -> None:
    (tmp_path / "groups.csv").write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        summarise(run, Grouping("age", tmp_path / "groups.csv"))


def test_paths_of_another_run(run: RunInfo, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("path,age\nnowhere/a.jpg,30\n")
    with pytest.raises(SettingsError, match=r"gives no photo of this run a group.*e\.g\. "):
        summarise(run, Grouping("age", tmp_path / "groups.csv"))
    with pytest.raises(SettingsError, match="not a file"):
        summarise(run, Grouping("age", Path(os.devnull)))


def test_what_cannot_be_summarised(run: RunInfo, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs `groups`"):
        Grouping("age")
    with pytest.raises(SettingsError, match="finite"):
        summarise(run, below=float("nan"))
    detected = write_run(tmp_path / "d", [scored("a.jpg", None)], Settings(task="detect"))
    with pytest.raises(RunError, match="has no scores"):
        summarise(detected)
    assert summarise(write_run(tmp_path / "empty", []), below=0.5) == []


def test_files_agree(run: RunInfo, tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("path,name\na.jpg,=evil()\ne.jpg,x\n")
    found = summarise(run, Grouping("name", table), below=0.25)
    for file_format in FORMATS:
        export(found, tmp_path / f"out.{file_format}", file_format)
    expected = [asdict(item) for item in found]
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == expected
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert {row["group"] for row in rows} == {"'=evil()", "x", ""}
    assert isinstance(found[0], GroupSummary)
    with pytest.raises(RunError, match="cannot write"):
        export(found, tmp_path / "missing" / "x.csv", "csv")


counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson(count: tuple[int, int]) -> None:
    expected = binomtest(*count).proportion_ci(0.95, method="wilson")
    assert wilson(*count) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ],
)
def test_differences_of_shares(first, second, expected) -> None:
    apart, low, high = share_difference(first, second)
    assert apart == first[0] / first[1] - second[0] / second[1]
    assert (low, high) == pytest.approx(expected, abs=6e-5)


@given(counts, counts)
def test_exchanging_them_changes_the_sign(first, second) -> None:
    apart, low, high = share_difference(first, second)
    assert share_difference(second, first) == pytest.approx((-apart, -high, -low))
    assert low <= apart <= high


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
        "identity = first folder, 1 person; all lie in one folder: identity = folder 2 would "
        "find 2 people"
    )
    assert told(*photos("people/a/1.jpg", "people/b/1.jpg"), level=LAST) == (
        "identity = last folder, 2 people"
    )
    twice = photos("a/1.jpg", "b/1.jpg") + photos("a/2.jpg", root="/q")
    assert told(*twice) == (
        "identity = first folder, 3 people; 1 of them have the same folder name as another one, "
        "below another root; a file of identities can join them"
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
