"""Lists of photos: LFW and XQLFW, CFP-FP, your own pairs, a folder for each person."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import DatasetError, FaceQANError, SettingsError
from faceqan_toolkit.evaluation.datasets.base import Dataset
from faceqan_toolkit.evaluation.datasets.readers import Joined, RowPairs
from faceqan_toolkit.evaluation.datasets.registry import read_dataset
from faceqan_toolkit.evaluation.datasets.validation import validate
from faceqan_toolkit.results.groups import IdentityRule
from tests.conftest import in_every_encoding
from tests.evaluation.datasets.trees import (
    Pair,
    all_pairs,
    cfp_tree,
    lfw_photo,
    lfw_tree,
    pairs_csv,
    photo,
)


def read_pairs(dataset: Dataset) -> list[Pair]:
    found = all_pairs(dataset)
    return [
        (dataset.paths[a], dataset.paths[b], bool(mated))
        for a, b, mated in zip(found.first, found.second, found.mated, strict=True)
    ]


def test_every_encoding_lfw(tmp_path: Path) -> None:
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
def test_any_list_is_read_or_refused_lfw(text: str, header: str) -> None:
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


def test_official_layout_cfp(tmp_path: Path) -> None:
    expected = cfp_tree(tmp_path)
    dataset = read_dataset("cfp-fp", tmp_path)
    found = all_pairs(dataset)
    assert found.fold is not None
    assert expected == [
        (dataset.paths[a], dataset.paths[b], bool(mated), fold)
        for a, b, mated, fold in zip(
            found.first, found.second, found.mated, found.fold.tolist(), strict=True
        )
    ]
    same = dataset.identities[found.first] == dataset.identities[found.second]
    assert same.tolist() == found.mated.tolist()
    report = validate(dataset)
    assert report.ok
    assert report.counts["mated"] == report.counts["non_mated"] == 40
    assert report.issue_counts["extra_file"] == 12 * 14 - len(dataset.paths)
    # the official one has 350 pairs a file, 5,000 frontal and 2,000 profile photos
    assert report.issue_counts["official_count"] == 3


@pytest.mark.parametrize(
    ("file", "line", "text", "kind"),
    [
        ("Split/FP/03/same.txt", 2, "x,1", "malformed_row"),
        ("Split/FP/03/same.txt", 2, "0,1", "malformed_row"),
        ("Split/FP/03/same.txt", 2, "1", "malformed_row"),
        ("Split/FP/03/same.txt", 2, "9999,1", "unknown_sample"),
        ("Split/FP/03/same.txt", 2, "1,9999", "unknown_sample"),
        ("Split/FP/03/same.txt", 2, "1,48", "contradicting_label"),
        ("Split/FP/03/diff.txt", 2, "1,1", "contradicting_label"),
        ("Split/FP/10/diff.txt", 4, "", "row_count"),
        ("Pair_list_P.txt", 2, "2 /etc/passwd", "malformed_row"),
        ("Pair_list_P.txt", 2, "2 ../../../a/b/c.jpg", "malformed_row"),
        ("Pair_list_P.txt", 2, "1 ../Data/Images/001/profile/02.jpg", "malformed_row"),
    ],
)
def test_what_is_wrong_is_named_cfp(
    tmp_path: Path, file: str, line: int, text: str, kind: str
) -> None:
    cfp_tree(tmp_path)
    target = tmp_path / "Protocol" / file
    lines = target.read_text().splitlines()
    lines[line - 1] = text
    target.write_text("\n".join(lines) + "\n")
    report = validate(read_dataset("cfp-fp", tmp_path, strict=False))
    issues = [issue for issue in report.issues if issue.kind == kind]
    assert f"Protocol/{file}" in {issue.file for issue in issues}
    if kind != "row_count":
        assert line in {issue.line for issue in issues}
    with pytest.raises(DatasetError, match="Protocol"):
        read_dataset("cfp-fp", tmp_path)


def test_missing_lists_and_photos(tmp_path: Path) -> None:
    cfp_tree(tmp_path)
    (tmp_path / "Protocol/Split/FP/07/diff.txt").unlink()
    dataset = read_dataset("cfp-fp", tmp_path, strict=False)
    (tmp_path / dataset.paths[0]).unlink()
    report = validate(dataset)
    assert report.issue_counts["missing_list"] == 1
    assert report.issue_counts["missing_file"] == 1
    assert "Protocol/Split/FP/07/diff.txt: no such file" in "\n".join(report.lines())


@settings(deadline=None)
@given(st.text(alphabet="0123456789,. /DImF\n\0é", max_size=30), st.booleans())
def test_any_list_is_read_or_refused_cfp(text: str, is_split: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "Protocol" / "Split" / "FP" / "01"
        target.mkdir(parents=True)
        good = "1 ../Data/Images/001/frontal/01.jpg\n"
        for name in ("F", "P"):
            file = Path(folder) / "Protocol" / f"Pair_list_{name}.txt"
            file.write_text(good if is_split else text, encoding="utf-8")
        (target / "same.txt").write_text(text if is_split else "1,1\n", encoding="utf-8")
        dataset = read_dataset("cfp-fp", Path(folder), strict=False)
        assert validate(dataset).issue_counts["missing_list"] == 19
        with pytest.raises(FaceQANError):
            read_dataset("cfp-fp", Path(folder))


PAIRS: list[Pair] = [
    ("a/1.jpg", "a/2.jpg", True),
    ("b, c/1.jpg", "a/1.jpg", False),
    ("b, c/1.jpg", "b, c/ä.jpg", True),
    ("d.jpg", "a/2.jpg", False),
]


def test_every_encoding_pairs(tmp_path: Path) -> None:
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
def test_what_is_wrong_is_named_pairs(tmp_path: Path, row: str, kind: str, line: int) -> None:
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


PAIRS_CELLS = st.one_of(
    st.sampled_from(["a.jpg", "b.jpg", "1", "0", "..", '"', ""]), st.text(max_size=4)
)


@settings(deadline=None)
@given(
    st.lists(st.lists(PAIRS_CELLS, min_size=1, max_size=4).map(",".join), max_size=6), st.booleans()
)
def test_any_list_is_read_or_refused_pairs(lines: list[str], with_header: bool) -> None:
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


PHOTOS = ["A/1.jpg", "A/2.jpg", "A/deep/3.jpg", "B/1.jpg", "C/1.png", "C/2.png", "D/1.jpg"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in PHOTOS:
        photo(tmp_path / path)
    (tmp_path / "B" / "notes.txt").write_text("no photo")
    return tmp_path


def expected(mated: bool) -> set[frozenset[str]]:
    return {
        frozenset(pair)
        for pair in itertools.combinations(PHOTOS, 2)
        if (pair[0][0] == pair[1][0]) == mated
    }


def test_all_pairs(root: Path) -> None:
    dataset = read_dataset("folders", root, non_mated="all")
    assert set(dataset.paths) == set(PHOTOS)
    found = all_pairs(dataset)
    for mated in (True, False):
        rows = np.flatnonzero(found.mated == mated)
        pairs = [frozenset((dataset.paths[found.first[r]], dataset.paths[found.second[r]]))
                 for r in rows]  # fmt: skip
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == expected(mated)
    assert len(dataset.pairs) == len(found.first) == 21
    report = validate(dataset)
    assert report.ok
    assert report.counts["identities"] == 4


def test_drawn_pairs(root: Path) -> None:
    def draw(**options: int) -> list[tuple[int, int]]:
        found = all_pairs(read_dataset("folders", root, **options))
        return list(zip(found.first[~found.mated].tolist(), found.second[~found.mated].tolist(),
                        strict=True))  # fmt: skip

    assert len(draw()) == 4  # as many as mated ones
    assert draw(non_mated=8) == draw(non_mated=8)
    assert draw(non_mated=8) != draw(non_mated=8, seed=1)
    assert len(set(draw(non_mated=8))) == 8
    assert set(draw(non_mated=8)) < set(draw(non_mated=17))
    assert len(draw(non_mated=10**9)) == 17
    assert draw(non_mated=0) == []


def test_a_draw_is_fair(root: Path) -> None:
    counts = np.zeros((7, 7))
    for seed in range(100):
        found = all_pairs(read_dataset("folders", root, non_mated=5, seed=seed))
        np.add.at(counts, (found.first[~found.mated], found.second[~found.mated]), 1)
    drawn = counts[counts > 0]
    assert len(drawn) == 17
    # 100 draws of 5 out of 17: 29 each, standard deviation 4.6
    assert drawn.min() > 14
    assert drawn.max() < 45


def test_photos_without_a_person(root: Path) -> None:
    photo(root / "alone.jpg")
    dataset = read_dataset("folders", root)
    assert set(dataset.paths) == set(PHOTOS)
    assert validate(dataset).issue_counts == {"no_identity": 1, "extra_file": 1}


def test_photos_of_several_people(root: Path) -> None:
    """The same photo in two people's folders is left out, twice in one person's is not."""
    for number, path in enumerate(PHOTOS):
        (root / path).write_bytes(b"%04d" % number * 2000)
    (root / "C/2.png").write_bytes((root / "A/2.jpg").read_bytes())
    (root / "B/copy.jpg").write_bytes((root / "B/1.jpg").read_bytes())
    (root / "D/begins_alike.jpg").write_bytes((root / "A/1.jpg").read_bytes()[:-1] + b"x")
    dataset = read_dataset("folders", root, non_mated="all")
    left_out = {"A/2.jpg", "C/2.png"}
    assert set(dataset.paths) == {
        *(set(PHOTOS) - left_out), "B/copy.jpg", "D/begins_alike.jpg"
    }  # fmt: skip
    told = [str(issue) for issue in dataset.log.issues]
    assert told == [
        "A/2.jpg: left out: the same photo as C/2.png, of another person",
        "C/2.png: left out: the same photo as A/2.jpg, of another person",
    ]
    assert validate(dataset).ok
    for path in PHOTOS:
        (root / path).write_bytes(b"")  # damaged files are not the same photo
    assert len(read_dataset("folders", root).paths) == 9


def test_other_people(root: Path, tmp_path: Path) -> None:
    assert read_dataset("folders", root).people == "identity = first folder, 4 people"
    deeper = read_dataset("folders", root, identity=IdentityRule(2), strict=False)
    assert deeper.people == "identity = folder 2, 1 person; 6 photos without an identity: left out"
    assert deeper.paths == ("A/deep/3.jpg",)
    table = tmp_path / "who.csv"
    table.write_text("path,identity\nA/1.jpg,x\nC/1.png,x\nD/1.jpg,y\n", encoding="utf-8")
    named = read_dataset("folders", root, non_mated="all", identity=IdentityRule(table=table))
    assert named.paths == ("A/1.jpg", "C/1.png", "D/1.jpg")
    assert named.identities.tolist() == [0, 0, 1]
    with pytest.raises(SettingsError, match="takes no `identity`; it is for folders"):
        read_dataset("lfw", root, identity=IdentityRule())


def test_refusals(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="negative"):
        read_dataset("folders", root, non_mated=-1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="nothing to compare"):
        read_dataset("folders", tmp_path / "empty")
    with pytest.raises(DatasetError, match="no such folder"):
        read_dataset("folders", tmp_path / "nothing")
    with pytest.raises(SettingsError, match="no such folder"):
        read_dataset("folders", root / "A" / "1.jpg")


def listed(pairs: RowPairs | Joined, block: int) -> list[tuple[int, int]]:
    parts = list(pairs.blocks(block))
    assert all(0 < len(part.first) <= block for part in parts)
    return [
        pair
        for part in parts
        for pair in zip(part.first.tolist(), part.second.tolist(), strict=True)
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8),
    st.integers(1, 7),
    st.data(),
)
def test_blocks_against_loops(rows: list[tuple[int, int]], block: int, data: st.DataObject) -> None:
    start = np.cumsum([gap for gap, _ in rows])
    stop = start + np.array([length for _, length in rows])
    everything = [
        (row, other)
        for row, (begin, end) in enumerate(zip(start, stop, strict=True))
        for other in range(begin, end)
    ]
    pairs = RowPairs(start, stop, False)
    joined = Joined((pairs, pairs))
    assert listed(joined, block) == everything * 2
    assert len(joined) == 2 * len(everything)
    if everything:
        chosen = sorted(data.draw(st.sets(st.integers(0, len(everything) - 1))))
        some = RowPairs(start, stop, False, np.array(chosen, np.int64))
        assert listed(some, block) == [everything[place] for place in chosen]
