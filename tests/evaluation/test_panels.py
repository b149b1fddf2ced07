"""What is read back from an evaluation's files is what was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faceqan_toolkit.errors import EvaluationError, SettingsError
from faceqan_toolkit.evaluation.output import write_evaluation
from faceqan_toolkit.evaluation.panels import Panel, read_panels


def test_read_back(evaluations, tmp_path: Path) -> None:
    write_evaluation(evaluations, tmp_path, figures=())
    for target in (0.1, 0.001):
        found = read_panels(tmp_path, target)
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
        read_panels(tmp_path, 0.1)
    write_evaluation(evaluations[:1], tmp_path, figures=())
    with pytest.raises(SettingsError, match=r"FMR 0\.25 was not evaluated"):
        read_panels(tmp_path, 0.25)
    curves = (tmp_path / "curves.csv").read_text(encoding="utf-8")
    (tmp_path / "curves.csv").write_text(curves.replace("0.", "x"), encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"curves\.csv"):
        read_panels(tmp_path, 0.1)
    (tmp_path / "curves.csv").write_text("dataset,target\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"lacks a method"):
        read_panels(tmp_path, 0.1)
    for text in (
        "", "{}", "[]", "[" * 100_000, '{"evaluations": [1]}', '{"evaluations": {"a": 1}}',
        '{"evaluations": [{"dataset": 1, "recogniser": 1, "options": {"edc": 1}, "methods": []}]}',
    ):  # fmt: skip
        (tmp_path / "summary.json").write_text(text, encoding="utf-8")
        with pytest.raises(EvaluationError, match=r"summary\.json is damaged, or no"):
            read_panels(tmp_path, 0.1)
    (tmp_path / "curves.csv").write_text("target\n" + "x" * 200_000, encoding="utf-8")
    (tmp_path / "summary.json").write_text('{"evaluations": []}', encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"curves\.csv is damaged, or no eval"):
        read_panels(tmp_path, 0.1)
