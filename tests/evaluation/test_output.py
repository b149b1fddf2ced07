"""The folder of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.evaluation import output


def test_everything_is_written_and_equal_again(evaluations, tmp_path: Path) -> None:
    made_by = {"command": "faceqan-toolkit evaluate", "version": "1"}
    written = output.write_evaluation(
        evaluations[:2], tmp_path / "a" / "b", made_by, figures=("svg",)
    )
    names = [path.name for path in written]
    assert names == [
        "summary.json", "areas.csv", "curves.csv", "tables.md", "tables.tex", "evaluation.html",
        "det.svg", "grid_fmr0.1.svg", "grid_fmr0.001.svg", "edc_1_fmr0.1.svg",
        "edc_1_fmr0.001.svg", "edc_2_fmr0.1.svg", "edc_2_fmr0.001.svg",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(names)
    summary = json.loads(written[0].read_text(encoding="utf-8"))
    assert summary["made_by"] == made_by
    assert summary["evaluations"] == [one.to_dict() for one in evaluations[:2]]
    again = output.write_evaluation(evaluations[:2], tmp_path / "c", made_by, figures=("svg",))
    for one, two in zip(written, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_without_matplotlib_there_are_no_figures(plain, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    written = output.write_evaluation([plain], tmp_path)
    assert len(written) == 6


def test_a_file_in_the_way(plain, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="taken"):
        output.write_evaluation([plain], tmp_path / "taken")
    (tmp_path / "out" / "areas.csv").mkdir(parents=True)
    with pytest.raises(RunError, match=r"areas\.csv"):
        output.write_evaluation([plain], tmp_path / "out")
