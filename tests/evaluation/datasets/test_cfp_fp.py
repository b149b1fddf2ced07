"""CFP-FP from its own Protocol folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import DatasetError, FaceQANError
from faceqan_toolkit.evaluation.datasets.registry import read_dataset
from faceqan_toolkit.evaluation.datasets.validation import validate
from tests.evaluation.datasets.trees import all_pairs, cfp_tree


def test_official_layout(tmp_path: Path) -> None:
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
def test_what_is_wrong_is_named(tmp_path: Path, file: str, line: int, text: str, kind: str) -> None:
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
def test_any_list_is_read_or_refused(text: str, is_split: bool) -> None:
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
