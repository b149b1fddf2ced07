"""Anybody's own pairs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import DatasetError, FaceQANError
from faceqan_toolkit.evaluation.datasets.registry import read_dataset
from faceqan_toolkit.evaluation.datasets.validation import validate
from tests.conftest import in_every_encoding
from tests.evaluation.datasets.test_lfw import read_pairs
from tests.evaluation.datasets.trees import Pair, pairs_csv, photo

PAIRS: list[Pair] = [
    ("a/1.jpg", "a/2.jpg", True),
    ("b, c/1.jpg", "a/1.jpg", False),
    ("b, c/1.jpg", "b, c/ä.jpg", True),
    ("d.jpg", "a/2.jpg", False),
]


def test_every_encoding(tmp_path: Path) -> None:
    pairs_csv(tmp_path / "list.csv", PAIRS)
    for data in in_every_encoding((tmp_path / "list.csv").read_text(encoding="utf-8")):
        (tmp_path / "list.csv").write_bytes(data)
        assert read_pairs(read_dataset("pairs", tmp_path, pairs=tmp_path / "list.csv")) == PAIRS


@pytest.mark.parametrize("columns", [("a", "b", "label"), ("label", "b", "a")])
def test_columns_in_any_order(tmp_path: Path, columns: tuple[str, ...]) -> None:
    pairs_csv(tmp_path / "list.csv", PAIRS, columns)
    for first, second, _ in PAIRS:
        photo(tmp_path / "root" / first)
        photo(tmp_path / "root" / second)
    dataset = read_dataset("pairs", tmp_path / "root", pairs=tmp_path / "list.csv")
    assert read_pairs(dataset) == PAIRS
    assert dataset.folds is None
    people = dict(zip(dataset.paths, dataset.identities.tolist(), strict=True))
    assert people["a/1.jpg"] == people["a/2.jpg"]
    assert len(set(people.values())) == 3
    assert validate(dataset).issue_counts == {}


def test_a_photo_that_is_called_two_people(tmp_path: Path) -> None:
    pairs = [*PAIRS, ("d.jpg", "a/1.jpg", True)]
    pairs_csv(tmp_path / "list.csv", pairs, ("a", "b", "label"))
    for path in {path for first, second, _ in pairs for path in (first, second)}:
        photo(tmp_path / path)
    (tmp_path / "d.jpg").write_bytes((tmp_path / "a/2.jpg").read_bytes())
    (tmp_path / "b, c/1.jpg").unlink()
    report = validate(read_dataset("pairs", tmp_path, pairs=tmp_path / "list.csv"))
    (issue,) = (issue for issue in report.issues if issue.kind == "same_photo")
    assert str(issue) == (
        "list.csv, line 5: a non-mated pair of the same photo: d.jpg and a/2.jpg are "
        "identical files"
    )
    assert issue.severity == "warning"


@pytest.mark.parametrize(
    ("row", "kind", "line"),
    [
        ("a,b,2", "malformed_row", 3),
        ("a,b,", "malformed_row", 3),
        ("a,b,true", "malformed_row", 3),
        ("a,b", "malformed_row", 3),
        ("a,b,1,x", "malformed_row", 3),
        (",b,1", "malformed_row", 3),
        ("/a,b,1", "malformed_row", 3),
        ("C:\\a,b,1", "malformed_row", 3),
        ("../a,b,1", "malformed_row", 3),
        ("x/../../a,b,1", "malformed_row", 3),
        ("p.jpg,q.jpg,0", "contradicting_label", 3),
        ("q.jpg,p.jpg,0", "contradicting_label", 3),
        ("p.jpg,p.jpg,0", "contradicting_label", 3),
        ("q.jpg,./p.jpg,1", "duplicate_pair", 3),
        ("p.jpg,p.jpg,1", "self_pair", 3),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, row: str, kind: str, line: int) -> None:
    file = tmp_path / "list.csv"
    file.write_text(f"a,b,label\np.jpg,q.jpg,1\n{row}\n")
    report = validate(read_dataset("pairs", tmp_path, pairs=file, strict=False))
    assert [issue.line for issue in report.issues if issue.kind == kind] == [line]


def test_people_that_contradict_each_other(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("a,b,label\np,q,1\nq,r,1\np,r,0\n")
    report = validate(read_dataset("pairs", tmp_path, pairs=file))
    (issue,) = (issue for issue in report.issues if issue.kind == "contradicting_identity")
    assert issue.line == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"a,b\nx,y\n", "line 1: the columns must be a, b, label; found a, b"),
        (b"a,b,label,more\n", "found a, b, label, more"),
        (b"x,y,1\n", "found x, y, 1"),
        (b'a,b,label\n"x,y,1\n', "unexpected end of data"),
        (b"\x89\xf4,\x07\n", "the columns must be a, b, label; the file is not text$"),
        (b"PK\3\4\0\0", "it is an Excel, zip or .npz file, not text"),
        ("a,b,label\nx,y,1\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
    ],
    ids=repr,
)
def test_lists_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"^pairs: list\.csv\b.*{message}"):
        read_dataset("pairs", tmp_path, pairs=file)
    with pytest.raises(DatasetError, match="no such file"):
        read_dataset("pairs", tmp_path, pairs=tmp_path / "nothing.csv")


CELLS = st.one_of(st.sampled_from(["a.jpg", "b.jpg", "1", "0", "..", '"', ""]), st.text(max_size=4))


@settings(deadline=None)
@given(st.lists(st.lists(CELLS, min_size=1, max_size=4).map(",".join), max_size=6), st.booleans())
def test_any_list_is_read_or_refused(lines: list[str], with_header: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "list.csv"
        text = "\n".join(["a,b,label"] * with_header + lines)
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        report = validate(read_dataset("pairs", Path(folder), pairs=file, strict=False))
        shown = "\n".join(report.lines())
        assert shown.encode().decode().splitlines() == report.lines()
        try:
            dataset = read_dataset("pairs", Path(folder), pairs=file)
        except FaceQANError:
            return
        assert len(dataset.pairs) <= len(lines)
