"""Files of an evaluation: written, and read back as they were drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from faceqan_toolkit.errors import EvaluationError, RunError, SettingsError
from faceqan_toolkit.evaluation import result_files
from faceqan_toolkit.evaluation.figures import Panel


def test_everything_is_written_and_equal_again(evaluations, tmp_path: Path) -> None:
    made_by = {"command": "faceqan-toolkit evaluate", "version": "1"}
    written = result_files.write_evaluation(
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
    assert summary["evaluations"] == json.loads(
        json.dumps([one.to_dict() for one in evaluations[:2]])
    )
    again = result_files.write_evaluation(
        evaluations[:2], tmp_path / "c", made_by, figures=("svg",)
    )
    for one, two in zip(written, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_without_matplotlib_there_are_no_figures(plain, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(result_files, "find_spec", lambda name: None)
    written = result_files.write_evaluation([plain], tmp_path)
    assert len(written) == 6


def test_a_file_in_the_way(plain, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="taken"):
        result_files.write_evaluation([plain], tmp_path / "taken")
    (tmp_path / "out" / "areas.csv").mkdir(parents=True)
    with pytest.raises(RunError, match=r"areas\.csv"):
        result_files.write_evaluation([plain], tmp_path / "out")


def test_read_back(evaluations, tmp_path: Path) -> None:
    result_files.write_evaluation(evaluations, tmp_path, figures=())
    for target in (0.1, 0.001):
        found = result_files.read_panels(tmp_path, target)
        assert len(found) == len(evaluations)
        for panel, evaluation in zip(found, evaluations, strict=True):
            drawn = Panel.of(evaluation, target)
            assert (panel.title, panel.edc, panel.fnmr0) == (drawn.title, drawn.edc, drawn.fnmr0)
            assert np.allclose(panel.low, drawn.low, rtol=1e-6)
            assert np.allclose(panel.high, drawn.high, rtol=1e-6)
            for line, expected in zip(panel.lines, drawn.lines, strict=True):
                assert (line.name, line.kind, line.note) == (
                    expected.name, expected.kind, expected.note,
                )  # fmt: skip
                assert np.allclose(line.curve.fnmr, expected.curve.fnmr, rtol=1e-6)
                assert np.allclose(line.curve.discard, expected.curve.discard, rtol=1e-6)
                assert line.curve.staircase == expected.curve.staircase


def test_what_is_no_evaluation(evaluations, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no summary\.json"):
        result_files.read_panels(tmp_path, 0.1)
    result_files.write_evaluation(evaluations[:1], tmp_path, figures=())
    with pytest.raises(SettingsError, match=r"FMR 0\.25 was not evaluated"):
        result_files.read_panels(tmp_path, 0.25)
    curves = (tmp_path / "curves.csv").read_text(encoding="utf-8")
    (tmp_path / "curves.csv").write_text(curves.replace("0.", "x"), encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"curves\.csv"):
        result_files.read_panels(tmp_path, 0.1)
    (tmp_path / "curves.csv").write_text("dataset,target\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"lacks a method"):
        result_files.read_panels(tmp_path, 0.1)
    for text in (
        "", "{}", "[]", "[" * 100_000, '{"evaluations": [1]}', '{"evaluations": {"a": 1}}',
        '{"evaluations": [{"dataset": 1, "recogniser": 1, "options": {"edc": 1}, "methods": []}]}',
    ):  # fmt: skip
        (tmp_path / "summary.json").write_text(text, encoding="utf-8")
        with pytest.raises(EvaluationError, match=r"summary\.json is damaged, or"):
            result_files.read_panels(tmp_path, 0.1)
    (tmp_path / "curves.csv").write_text("target\n" + "x" * 200_000, encoding="utf-8")
    (tmp_path / "summary.json").write_text('{"evaluations": []}', encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"curves\.csv is damaged, or was not"):
        result_files.read_panels(tmp_path, 0.1)
