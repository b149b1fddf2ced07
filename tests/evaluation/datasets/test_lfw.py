"""LFW and XQLFW: `pairs.txt`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import DatasetError, FaceQANError
from faceqan_toolkit.evaluation.datasets.base import Protocol
from faceqan_toolkit.evaluation.datasets.registry import read_dataset
from faceqan_toolkit.evaluation.datasets.validation import validate
from tests.conftest import in_every_encoding
from tests.evaluation.datasets.trees import Pair, all_pairs, lfw_photo, lfw_tree, photo


def read_pairs(dataset: Protocol) -> list[Pair]:
    found = all_pairs(dataset)
    return [
        (dataset.paths[a], dataset.paths[b], bool(mated))
        for a, b, mated in zip(found.first, found.second, found.mated, strict=True)
    ]


def test_every_encoding(tmp_path: Path) -> None:
    tree = lfw_tree(tmp_path)
    for data in in_every_encoding("\r\n".join(tree.lines)):
        (tmp_path / "pairs.txt").write_bytes(data)
        assert read_pairs(read_dataset("lfw", tmp_path)) == tree.pairs
    (tmp_path / "pairs.txt").write_bytes("\n".join(tree.lines).encode("utf-16-le"))
    with pytest.raises(DatasetError, match=r"pairs\.txt: .*UTF-16 without a byte order mark"):
        read_dataset("lfw", tmp_path)


def test_ten_folds(tmp_path: Path) -> None:
    tree = lfw_tree(tmp_path)
    dataset = read_dataset("lfw", tmp_path)
    assert read_pairs(dataset) == tree.pairs
    found = all_pairs(dataset)
    assert found.fold is not None
    assert found.fold.tolist() == [fold for fold in range(10) for _ in range(6)]
    assert len(set(dataset.paths)) == len(dataset.paths)
    people = [path.split("/")[0] for path in dataset.paths]
    assert (dataset.identities[:, None] == dataset.identities).tolist() == [
        [a == b for b in people] for a in people
    ]
    assert all(Path(source.place).is_file() for source in dataset.sources())
    assert validate(dataset).ok


def test_development_sets(tmp_path: Path) -> None:
    tree = lfw_tree(tmp_path, folds=None, per_fold=7, name="pairsDevTest.txt")
    dataset = read_dataset("lfw", tmp_path, pairs=tmp_path / "pairsDevTest.txt")
    assert read_pairs(dataset) == tree.pairs
    assert dataset.folds is None
    assert all_pairs(dataset).fold is None
    assert validate(dataset).issue_counts == {}


def test_spaces_and_windows_lines(tmp_path: Path) -> None:
    tree = lfw_tree(tmp_path)
    text = "\r\n".join(line.replace("\t", "  ") for line in tree.lines)
    (tmp_path / "pairs.txt").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")
    assert read_pairs(read_dataset("lfw", tmp_path)) == tree.pairs


ORIGINAL = "lfw_original_imgs_min_qual0.85variant11"


@pytest.mark.parametrize(
    ("name", "folder", "extension"),
    [
        ("xqlfw", ORIGINAL, ".jpg"),
        ("xqlfw", "xqlfw_aligned_112", ".jpg"),
        ("xqlfw", "my_crops", ".png"),
        ("lfw", "lfw-deepfunneled", ".jpg"),
        ("lfw", "", ".png"),
    ],
)
def test_photos_are_found(tmp_path: Path, name: str, folder: str, extension: str) -> None:
    listed = f"{name}_pairs.txt" if name == "xqlfw" else "pairs.txt"
    tree = lfw_tree(tmp_path, folder=folder, extension=extension, name=listed)
    dataset = read_dataset(name, tmp_path)
    assert read_pairs(dataset) == tree.pairs
    assert validate(dataset).ok


def test_xqlfw_with_both_folders(tmp_path: Path) -> None:
    lfw_tree(tmp_path, folder="xqlfw_aligned_112", name="xqlfw_pairs.txt")
    tree = lfw_tree(tmp_path, folder=ORIGINAL, name="xqlfw_pairs.txt")
    dataset = read_dataset("xqlfw", tmp_path)
    assert read_pairs(dataset) == tree.pairs
    assert validate(dataset).issue_counts["several_folders"] == 1
    aligned = read_dataset("xqlfw", tmp_path / "xqlfw_aligned_112")  # its list is one up
    assert aligned.paths[0] == tree.pairs[0][0].removeprefix(f"{ORIGINAL}/")
    assert validate(aligned).ok


def problems(tree_root: Path, kind: str) -> list[tuple[int | None, str]]:
    report = validate(read_dataset("lfw", tree_root, strict=False))
    return [(issue.line, issue.message) for issue in report.issues if issue.kind == kind]


def test_missing_extra_and_duplicated(tmp_path: Path) -> None:
    tree = lfw_tree(tmp_path)
    first, second, _ = tree.pairs[0]
    (tmp_path / second).unlink()
    photo(tmp_path / lfw_photo("Nobody", 1))
    lines = list(tree.lines)
    lines[2] = lines[1]
    lines[5] = "\t".join(lines[4].split("\t")[2:] + lines[4].split("\t")[:2])
    lines[7] = "Person_1_0\t1\t1"
    tree.rewrite(lines)
    report = validate(read_dataset("lfw", tmp_path))
    assert not report.ok
    assert report.issue_counts["missing_file"] == 1
    assert report.issue_counts["extra_file"] == 2 + 1  # what lines 3 and 8 named before
    found = {(issue.kind, issue.line or issue.file) for issue in report.issues}
    assert {("missing_file", second), ("extra_file", "Nobody/Nobody_0001.jpg"),
            ("duplicate_pair", 3), ("duplicate_pair", 6), ("self_pair", 8)} <= found  # fmt: skip
    messages = {issue.line: issue.message for issue in report.issues}
    assert messages[3] == "repeats the pair of pairs.txt, line 2"
    assert messages[6] == "repeats the pair of pairs.txt, line 5, in the other order"
    assert first in {source.path for source in read_dataset("lfw", tmp_path).sources()}


@pytest.mark.parametrize(
    ("line", "text", "kind", "where"),
    [
        (0, "", "header", 2),
        (0, "ten\t3", "header", 1),
        (0, "10\t3\t7", "header", 1),
        (0, "0\t3", "header", 1),
        (0, "9\t3", "row_count", None),
        (0, "11\t3", "row_count", None),
        (2, "Person_0_1\t1", "malformed_row", 3),
        (2, "Person_0_1\t1\tx", "malformed_row", 3),
        (2, "Person_0_1\t0\t2", "malformed_row", 3),
        (2, "../Person\t1\t2", "malformed_row", 3),
        (2, "..\t1\t2", "malformed_row", 3),
        (2, "Person_0_1\t1\tPerson_0_2\t2", "malformed_row", 3),
        (4, "Person_0_1\t1\t2", "malformed_row", 5),
        (4, "Person_0_1\t1\tPerson_0_1\t2", "contradicting_label", 5),
        (60, "", "row_count", None),
    ],
)
def test_lists_that_are_wrong(
    tmp_path: Path, line: int, text: str, kind: str, where: int | None
) -> None:
    tree = lfw_tree(tmp_path)
    lines = list(tree.lines)
    lines[line] = text
    tree.rewrite(lines)
    assert where in [number for number, _ in problems(tmp_path, kind)]
    with pytest.raises(DatasetError, match=f"line {where}" if where else "pairs.txt"):
        read_dataset("lfw", tmp_path)


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"pairs\.txt: no such file"):
        read_dataset("lfw", tmp_path)
    report = validate(read_dataset("lfw", tmp_path, strict=False))
    assert report.issue_counts == {"missing_list": 1}


def test_a_name_that_no_file_system_takes(tmp_path: Path) -> None:
    name = "A" * 5000
    (tmp_path / "pairs.txt").write_text(f"1\t1\n{name}\t1\t2\n{name}\t1\tB\t2\n")
    report = validate(read_dataset("lfw", tmp_path, strict=False))
    assert report.issue_counts["missing_file"] == 3


CELLS = st.one_of(st.sampled_from(["10", "3", "1", "2", "A", "B_C", "..", ""]), st.text(max_size=4))
LINES = st.lists(st.lists(CELLS, min_size=1, max_size=5).map("\t".join), max_size=8)


@settings(deadline=None)
@given(st.one_of(LINES.map("\n".join), st.text()), st.sampled_from(["1\t1\n", "2\n", ""]))
def test_any_list_is_read_or_refused(text: str, header: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.txt"
        file.write_bytes((header + text).encode("utf-8", "surrogatepass"))
        report = validate(read_dataset("lfw", Path(folder), strict=False))
        assert report.lines()
        try:
            dataset = read_dataset("lfw", Path(folder))
        except FaceQANError:
            return
        assert len(dataset.pairs) == 2 * int(report.counts["mated"])
