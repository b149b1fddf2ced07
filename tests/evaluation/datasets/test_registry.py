"""Registry of data sets, reports, and the page that describes them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.errors import DatasetError, SettingsError
from faceqan_toolkit.evaluation.datasets.base import KEPT_OF_A_KIND, SEVERITY
from faceqan_toolkit.evaluation.datasets.readers import read_lfw
from faceqan_toolkit.evaluation.datasets.registry import (
    DATASETS,
    REQUIRED,
    read_dataset,
    register_dataset,
)
from faceqan_toolkit.evaluation.datasets.validation import validate
from faceqan_toolkit.settings import FACE_POLICIES
from tests.conftest import HANG, add_entry_points
from tests.evaluation.datasets.trees import lfw_tree

DOCUMENT = Path(__file__).parents[3] / "docs" / "protocols.md"
NAMES = ("lfw", "xqlfw", "cfp-fp", "bin", "ijbc", "pairs", "folders")

PLUGIN = '''
from pathlib import Path
from faceqan_toolkit.evaluation.datasets.readers import read_lfw
from faceqan_toolkit.evaluation.datasets.registry import register_dataset

@register_dataset("calfw", faces="largest")
def read_calfw(root: Path, *, variant: str = "a"):
    """CALFW."""
    assert variant == "b"
    return read_lfw(root)
'''


def test_the_data_sets_of_this_package() -> None:
    assert {entry.name for entry in DATASETS.imported} == set(NAMES)
    for entry in DATASETS.imported:
        assert entry.faces is None or entry.faces in FACE_POLICIES
        assert entry.help.endswith(".")
    assert dict(DATASETS["pairs"].options) == {"pairs": REQUIRED}
    assert set(DATASETS["folders"].options) == {"non_mated", "seed", "identity"}


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"dataset is ytf; it must be one of (\w|-|, )*\bxqlfw\b"
    ):
        read_dataset("ytf", tmp_path)
    with pytest.raises(SettingsError, match=r"ijbc takes no `pairs`; it is for .*xqlfw"):
        read_dataset("ijbc", tmp_path, pairs=tmp_path / "list")
    for option in ({"seed": 1}, {"non_mated": "all"}, {"non_mated": 0}):
        with pytest.raises(SettingsError, match="it is for folders"):
            read_dataset("lfw", tmp_path, **option)
    with pytest.raises(SettingsError, match=r"lfw takes no `colour`$"):
        read_dataset("lfw", tmp_path, colour="red")
    with pytest.raises(SettingsError, match="pairs needs `pairs`"):
        read_dataset("pairs", tmp_path)
    for name in NAMES:
        with pytest.raises(DatasetError, match="no such folder"):
            read_dataset(name, tmp_path / "nothing", pairs=None if name != "pairs" else tmp_path)


@given(st.text().filter(lambda name: name not in NAMES))
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="it must be one of"):
        read_dataset(name, DOCUMENT.parent)


def test_the_default_face_of_a_data_set(tmp_path: Path) -> None:
    lfw_tree(tmp_path)
    assert read_dataset("lfw", tmp_path).faces == "central"


def test_a_package_adds_a_data_set(tmp_path: Path) -> None:
    """In a process of its own: what is registered stays."""
    lfw_tree(tmp_path / "data")
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    add_entry_points(tmp_path, "datasets", {"calfw": "plugin", "broken": "no_such_module"})
    code = """
import sys
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation.datasets.registry import DATASETS, read_dataset
assert {"calfw", "broken"} < set(DATASETS) and "plugin" not in sys.modules
assert DATASETS.find("calfw").faces == "largest"
found = read_dataset("calfw", "data", variant="b")
assert found.faces == "largest" and len(found.pairs) == 60
try:
    DATASETS.find("broken")
except SettingsError as error:
    print(error)
"""
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=HANG,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))}, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "dataset broken: no_such_module cannot be imported: ModuleNotFound" in told.stdout


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="dataset lfw is registered twice"):
        register_dataset("lfw", faces=None)(read_lfw)


def test_reports(tmp_path: Path) -> None:
    tree = lfw_tree(tmp_path)
    for path in {path for a, b, _ in tree.pairs for path in (a, b)}:
        (tmp_path / path).unlink()
    report = validate(read_dataset("lfw", tmp_path))
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
    report = validate(read_dataset("pairs", tmp_path, pairs=tmp_path / "pairs.csv"))
    assert "  a/%1B[31m.jpg: a photo that no pair names" in report.lines()
    assert "a/%1B[31m.jpg" in [issue["file"] for issue in report.as_dict()["issues"]]


def test_thousands_of_issues_are_counted_not_kept(tmp_path: Path) -> None:
    lines = ["1\t3000", *(f"P{n}\t1\t2" for n in range(3000)), *("A\t1\tB\t1",) * 3000]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    report = validate(read_dataset("lfw", tmp_path))
    assert report.issue_counts["missing_file"] == 6002
    assert report.issue_counts["duplicate_pair"] == 2999
    for kind in ("missing_file", "duplicate_pair"):
        assert sum(issue.kind == kind for issue in report.issues) == KEPT_OF_A_KIND


def test_everything_is_documented() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    faces = page.split("## Which face of a photo")[1]
    for entry in DATASETS.imported:
        assert f"\n| `{entry.name}` | " in page
        assert f"\n**{entry.name}.** " in page
        (policy,) = re.findall(rf"^\| [^|]*`{entry.name}`[^|]* \| `?(\w+)`? \|", faces, re.M)
        assert policy == (entry.faces or "none")
    for kind in SEVERITY:
        assert f"| {kind.replace('_', ' ')} | {SEVERITY[kind]} |" in page
