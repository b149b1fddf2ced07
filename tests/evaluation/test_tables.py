"""Tables say what the evaluation says, and can be read back."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest

from faceqan_toolkit.evaluation import tables
from faceqan_toolkit.text import unguard
from tests.evaluation.conftest import HOSTILE


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_areas(evaluations) -> None:
    found = rows(tables.areas_csv(evaluations))
    expected = [
        (one, method, point, figures, place)
        for one in evaluations
        for method in one.methods
        for point, figures in zip(one.points, method.figures, strict=True)
        for place in range(3)
    ]
    assert len(found) == len(expected)
    for row, (one, method, point, figures, place) in zip(found, expected, strict=True):
        assert unguard(row["recogniser"]) == one.recogniser
        assert unguard(row["method"]) == method.name
        assert row["target"] == point.name
        assert float(row["pauc"]) == pytest.approx(figures.areas[place].raw, rel=1e-6)
        assert float(row["pauc_normalised_low"]) == pytest.approx(
            figures.normalised_intervals[place].low, rel=1e-6
        )
        assert row["warnings"].split("; ") == list(point.warnings) or not point.warnings


def test_curves(evaluations) -> None:
    found = rows(tables.curves_csv(evaluations[:1]))
    curve = evaluations[0].method("FaceQAN").figures[1].curve
    ours = [row for row in found if row["method"] == "FaceQAN" and row["target"] == "FMR 0.001"]
    assert np.allclose([float(row["fnmr"]) for row in ours], curve.fnmr, rtol=1e-6)
    assert np.allclose([float(row["discard"]) for row in ours], curve.discard, rtol=1e-6)
    assert [int(row["errors"]) for row in ours] == curve.errors.tolist()


def test_markdown(evaluations, plain) -> None:
    text = tables.markdown([evaluations[0]])
    table = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table]
    assert {len(row) for row in cells} == {4}
    assert [row[0].strip() for row in cells[2:]] == [
        "FaceQAN (S)", "Norm & co (C)", "Sharpness",
        r"\</script\>\<b onclick=x\>\_$a^2$&\|\*", "random", "oracle",
    ]  # fmt: skip
    # best of the quality methods in each column, never an oracle or a simple measure
    for column in (1, 2, 3):
        bold = [row[0].strip() for row in cells[2:] if "**" in row[column]]
        raw = {m.name: m.figures[column - 1].areas[0].raw for m in evaluations[0].methods
               if m.kind == "quality"}  # fmt: skip
        assert len(bold) == sum(value == min(raw.values()) for value in raw.values())
        assert "oracle" not in bold
        assert "Sharpness" not in bold
    first = evaluations[0].method("FaceQAN").figures[0]
    low, high = first.normalised_intervals[0].low, first.normalised_intervals[0].high
    assert f"{first.areas[0].normalised:.3f}" in cells[2][1]
    assert f"[{low:.3f}, {high:.3f}]" in cells[2][1]
    assert "95 % intervals over identities" in text
    assert "of a template: min" in text
    assert "Careful, FMR 0.001: the" in text
    assert "intervals" not in tables.markdown([plain])


def test_latex(evaluations) -> None:
    text = tables.latex(evaluations)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert HOSTILE not in text
    escaped = r"\textless{}/script\textgreater{}\textless{}b onclick=x\textgreater{}"
    assert escaped + r"\_\$a\textasciicircum{}2\$\&|*" in text
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if "&" in line} == {3}
    unescaped = re.sub(r"\\.", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    assert "%" not in unescaped
    assert re.search(r"\\textbf\{\d\.\d{3}\} \[", text)


def test_a_latex_caption_is_short_and_a_note_has_the_rest(evaluations) -> None:
    text = tables.latex(evaluations[:1])
    (caption,) = re.findall(r"\\caption\{(.*)\}\n", text)
    assert caption == (
        "LFW, sface: normalised area under the error-versus-discard curve up to a discard share "
        "of 0.2; lower is better."
    )
    table, note = text.split(r"\end{tabular}")
    assert len(table.partition(r"\begin{tabular}")[0]) < 250
    for line in tables.markdown(evaluations[:1]).splitlines():
        if line.startswith("- "):
            assert line[2:].replace("\\", "").replace("%", r"\%") in note
    assert note.index(r"\begin{minipage}") < note.index("Threshold fixed")


def test_no_errors_make_a_dash(plain) -> None:
    assert tables.number(None) == "-"
    assert tables.between(None) == ""


def test_same_evaluation_same_text(evaluations) -> None:
    for make in (tables.areas_csv, tables.curves_csv, tables.markdown, tables.latex):
        assert make(evaluations) == make(evaluations)
