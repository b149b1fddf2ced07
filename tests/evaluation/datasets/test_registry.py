"""Protocols by name, reports, and the page that describes them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.errors import ProtocolError, SettingsError
from faceqan_toolkit.evaluation.datasets.issues import KEPT_OF_A_KIND, SEVERITY
from faceqan_toolkit.evaluation.datasets.registry import read_protocol
from faceqan_toolkit.evaluation.datasets.validation import validate
from faceqan_toolkit.evaluation.options import PROTOCOLS
from tests.evaluation.datasets.trees import lfw_tree

DOCUMENT = Path(__file__).parents[3] / "docs" / "protocols.md"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no protocol is called 'ytf'; there are lfw, xqlfw"):
        read_protocol("ytf", tmp_path)
    with pytest.raises(SettingsError, match="ijbc has its own pairs"):
        read_protocol("ijbc", tmp_path, pairs=tmp_path / "list")
    for option in ({"seed": 1}, {"non_mated": "all"}, {"non_mated": 0}):
        with pytest.raises(SettingsError, match="for folders"):
            read_protocol("lfw", tmp_path, **option)
    with pytest.raises(SettingsError, match="name the list"):
        read_protocol("pairs", tmp_path)
    for name in PROTOCOLS:
        with pytest.raises(ProtocolError, match="no such folder"):
            read_protocol(name, tmp_path / "nothing", pairs=None if name != "pairs" else tmp_path)


@given(st.text().filter(lambda name: name not in PROTOCOLS))
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="no protocol is called"):
        read_protocol(name, DOCUMENT.parent)


def test_reports(tmp_path: Path) -> None:
    tree = lfw_tree(tmp_path)
    for path in {path for a, b, _ in tree.pairs for path in (a, b)}:
        (tmp_path / path).unlink()
    report = validate(read_protocol("lfw", tmp_path))
    assert not report.ok
    text = report.lines(2)
    assert "  comparisons: 60" in text
    assert "error: missing file: 70" in text
    assert "  and 68 more" in text
    assert text[-1] == "not usable as it is"
    assert json.loads(json.dumps(report.as_dict()))["issue_counts"]["missing_file"] == 70


@pytest.mark.skipif(os.name == "nt", reason="no such names")
def test_names_are_as_in_results(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in (1, 2):
            (tmp_path / name / f"{number}.jpg").touch()
    (tmp_path / "pairs.csv").write_text("a,b,label\na/1.jpg,a/2.jpg,1\nb/1.jpg,a/1.jpg,0\n")
    (tmp_path / "a" / "\x1b[31m.jpg").touch()
    report = validate(read_protocol("pairs", tmp_path, pairs=tmp_path / "pairs.csv"))
    assert "  a/%1B[31m.jpg: a photo that no pair names" in report.lines()
    assert "a/%1B[31m.jpg" in [issue["file"] for issue in report.as_dict()["issues"]]


def test_thousands_of_issues_are_counted_not_kept(tmp_path: Path) -> None:
    lines = ["1\t3000", *(f"P{n}\t1\t2" for n in range(3000)), *("A\t1\tB\t1",) * 3000]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    report = validate(read_protocol("lfw", tmp_path))
    assert report.issue_counts["missing_file"] == 6002
    assert report.issue_counts["duplicate_pair"] == 2999
    for kind in ("missing_file", "duplicate_pair"):
        assert sum(issue.kind == kind for issue in report.issues) == KEPT_OF_A_KIND


def test_everything_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in PROTOCOLS:
        assert f"`{name}`" in text
    for kind in SEVERITY:
        assert f"| {kind.replace('_', ' ')} | {SEVERITY[kind]} |" in text
