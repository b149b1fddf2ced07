"""Files of an evaluation: what the tables and the page say, and what is read back."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from faceqan_toolkit.errors import EvaluationError, RunError, SettingsError
from faceqan_toolkit.evaluation import result_files
from faceqan_toolkit.evaluation.figures import Panel
from faceqan_toolkit.evaluation.result_files import PAGE_SHARES
from faceqan_toolkit.text import unguard
from tests.conftest import HANG
from tests.evaluation.conftest import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_areas(evaluations) -> None:
    found = rows(result_files.areas_csv(evaluations))
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
            figures.areas[place].normalised_interval.low, rel=1e-6
        )
        assert row["warnings"].split("; ") == list(point.warnings) or not point.warnings


def test_curves(evaluations) -> None:
    found = rows(result_files.curves_csv(evaluations[:1]))
    curve = evaluations[0].method("FaceQAN").figures[1].curve
    ours = [row for row in found if row["method"] == "FaceQAN" and row["target"] == "FMR 0.001"]
    assert np.allclose([float(row["fnmr"]) for row in ours], curve.fnmr, rtol=1e-6)
    assert np.allclose([float(row["discard"]) for row in ours], curve.discard, rtol=1e-6)
    assert [int(row["errors"]) for row in ours] == curve.errors.tolist()


def test_markdown(evaluations, plain) -> None:
    text = result_files.markdown([evaluations[0]])
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
    low, high = first.areas[0].normalised_interval.low, first.areas[0].normalised_interval.high
    assert f"{first.areas[0].normalised:.3f}" in cells[2][1]
    assert f"[{low:.3f}, {high:.3f}]" in cells[2][1]
    assert "95 % intervals over identities" in text
    assert "of a template: min" in text
    assert "Careful, FMR 0.001: the" in text
    assert "intervals" not in result_files.markdown([plain])


def test_latex(evaluations) -> None:
    text = result_files.latex(evaluations)
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
    text = result_files.latex(evaluations[:1])
    (caption,) = re.findall(r"\\caption\{(.*)\}\n", text)
    assert caption == (
        "LFW, sface: normalised area under the error-versus-discard curve up to a discard share "
        "of 0.2; lower is better."
    )
    table, note = text.split(r"\end{tabular}")
    assert len(table.partition(r"\begin{tabular}")[0]) < 250
    for line in result_files.markdown(evaluations[:1]).splitlines():
        if line.startswith("- "):
            assert line[2:].replace("\\", "").replace("%", r"\%") in note
    assert note.index(r"\begin{minipage}") < note.index("Threshold fixed")


def test_no_errors_make_a_dash(plain) -> None:
    assert result_files.number(None) == "-"
    assert result_files.between(None) == ""


def test_same_evaluation_same_text(evaluations) -> None:
    for make in (
        result_files.areas_csv,
        result_files.curves_csv,
        result_files.markdown,
        result_files.latex,
    ):
        assert make(evaluations) == make(evaluations)


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def text(evaluations) -> str:
    return result_files.page(evaluations, {"command": f"evaluate {HOSTILE}"})


def test_names_are_text(text: str) -> None:
    read = Reader(text)
    assert not [tag for tag, _ in read.tags if tag == "b"]
    assert not [attrs for _, attrs in read.tags if any(name.startswith("on") for name in attrs)]
    assert read.text.count(HOSTILE) >= 4
    assert [tag for tag, _ in read.tags].count("script") == 2


def test_nothing_is_loaded(text: str) -> None:
    addresses = set(re.findall(r"\w+://[^\"' )]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    read = Reader(text)
    for tag, attrs in read.tags:
        assert "src" not in attrs
        assert tag != "link" or attrs["href"] == "data:,"
    assert "default-src 'none'" in text


def test_data_are_the_curves(text: str, evaluations) -> None:
    raw = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data = json.loads(raw.group(1))
    assert data["shares"] == PAGE_SHARES.tolist()
    for drawn, one in zip(data["evaluations"], evaluations, strict=True):
        assert [method["name"] for method in drawn["methods"]] == [m.name for m in one.methods]
        for point, index in zip(drawn["points"], range(len(one.points)), strict=True):
            for values, method in zip(point["curves"], one.methods, strict=True):
                assert values == pytest.approx(
                    method.figures[index].curve.at(PAGE_SHARES), rel=1e-4, abs=1e-12
                )


def test_tables_are_there_without_scripts(text: str, evaluations) -> None:
    read = Reader(text)
    sections = [attrs for tag, attrs in read.tags if tag == "section"]
    assert len(sections) == sum(len(one.points) for one in evaluations)
    assert not any("hidden" in attrs for attrs in sections)
    area = evaluations[0].method("FaceQAN").figures[0].areas[0]
    assert f"{area.normalised:.3f}" in read.text
    assert "Careful: the " in read.text


def test_same_evaluations_same_page(evaluations, text: str) -> None:
    assert result_files.page(evaluations, {"command": f"evaluate {HOSTILE}"}) == text


def test_plain_page(plain) -> None:
    text = result_files.page([plain])
    assert "<footer>" not in text
    assert "over identities" not in text


def test_in_a_browser(text: str, evaluations, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    tab = browser.new_page()
    tab.set_default_timeout(1000 * HANG)
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda message: problems.append(message.text))
    tab.on(
        "request",
        lambda request: (
            None if request.url.startswith(("file:", "data:")) else problems.append(request.url)
        ),
    )
    tab.goto((tmp_path / "page.html").as_uri())
    methods = len(evaluations[0].methods)
    assert tab.locator("#plot g path").count() == methods
    assert tab.locator("section.table:visible").count() == 1

    tab.select_option("#evaluation", "1")
    tab.select_option("#point", "0")
    assert tab.locator("section.table:visible h2").inner_text() == "XQLFW, sface, FMR 0.1"
    box = tab.locator("#plot").bounding_box()
    scale = box["width"] / 640
    tab.mouse.move(box["x"] + scale * (58 + 570 * 0.2 / 0.95), box["y"] + box["height"] / 2)
    assert tab.locator("#where").inner_text() == "FNMR with 20 % discarded"
    rate = evaluations[1].method("FaceQAN").figures[0].curve.at(0.2)
    assert tab.locator('output[data-name="FaceQAN"]').inner_text() == f"{rate:.4f}"

    tab.locator("#legend label").first.click()
    assert tab.locator("#plot g path").count() == methods - 1
    tab.select_option("#limit", "0.2")
    assert tab.locator("#plot text").all_text_contents()[:3] == ["0", "0.05", "0.1"]
    back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.click("#theme")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != back
    tab.close()
    assert problems == []


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
