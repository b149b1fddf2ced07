"""Figures: what is drawn, and that files are deterministic."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from faceqan_toolkit.errors import MissingDependency, SettingsError
from faceqan_toolkit.evaluation import figures
from faceqan_toolkit.evaluation.curves import edc
from faceqan_toolkit.evaluation.figures import Panel
from faceqan_toolkit.evaluation.options import FIGURE_FORMATS
from faceqan_toolkit.photos.decode import decode_bytes
from tests.evaluation.conftest import HOSTILE


def test_lines_are_the_curves(evaluations) -> None:
    one = evaluations[0]
    (axes,) = figures.edc_figure(one, 0.1).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert len(lines) == len(one.methods)
    curve = one.method("FaceQAN").figures[0].curve
    x, y = lines["FaceQAN (S)"].get_data()
    assert (x[0], x[-1]) == (0, 0.95)
    shares = np.linspace(0.001, 0.949, 333)
    for share in shares:
        if share in curve.discard:
            continue
        place = np.searchsorted(x, share, side="right") - 1
        assert y[place] == curve.at(share)  # horizontal up to the next step
    assert axes.get_xlim() == (0, 0.95)
    assert axes.get_ylabel() == "FNMR at FMR 0.1"


def test_thinning_keeps_the_shape() -> None:
    curve = edc(np.arange(200) % 7 == 0, np.arange(200))
    assert len(figures._line(curve, 0.9)[0]) < 2 * 200
    constant = edc(np.arange(200) < 20, np.zeros(200))
    assert [part.tolist() for part in figures._line(constant, 0.9)] == [[0, 0.9], [0.1, 0.1]]
    kept = figures._thinned(np.array([0, 1, 2, 2, 2, 3.0]), np.array([1, 1, 1, 2, 3, 3.0]))
    assert [part.tolist() for part in kept] == [[0, 2, 2, 3], [1, 1, 3, 3]]


def test_pens_differ() -> None:
    assert len({figures.pen(index) for index in range(72)}) == 72
    assert len({*figures.COLOURS, figures.BLACK, figures.GREY}) == 8
    # in grey the dashes alone tell a dozen methods and both baselines apart
    assert len({*figures.DASHES, figures.ORACLE, figures.RANDOM}) == 14


@pytest.mark.parametrize("simple", [0, 4, 9])
def test_no_two_lines_look_the_same(evaluations, simple: int) -> None:
    """Not even in grey, and whatever the kinds of the methods are."""
    panel = Panel.of(evaluations[0], 0.1)
    line = panel.lines[0]
    kinds = ["quality"] * (12 - simple) + ["simple"] * simple
    methods = [dataclasses.replace(line, name=f"m{n}", kind=kind) for n, kind in enumerate(kinds)]
    baselines = [line for line in panel.lines if line.kind in ("random", "oracle")]
    panel = dataclasses.replace(panel, lines=(*methods, *baselines))
    figure = figures.grid_figure([panel], 0.1)
    drawn = [line for axes in figure.axes for line in axes.get_lines()]
    assert len(drawn) == 14
    # strokes and gaps relative to the width, which matplotlib multiplies them by
    styles = [line._unscaled_dash_pattern for line in drawn]
    assert len(set(map(str, styles))) == 14
    for one, other in itertools.combinations(drawn[:6] + drawn[-2:], 2):
        assert one.get_color() != other.get_color()


def test_grid(evaluations) -> None:
    panels = [Panel.of(one, 0.1) for one in evaluations]
    figure = figures.grid_figure(panels, 0.1)
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(figure.axes) == 4
    assert len(shown) == 3
    colours = [{line.get_label(): line.get_color() for line in axes.get_lines()} for axes in shown]
    assert colours[0] == colours[1] == colours[2]
    with pytest.raises(SettingsError, match="one evaluation for each"):
        figures.grid_figure([panels[0], panels[0]], 0.1)
    with pytest.raises(SettingsError, match="one evaluation for each"):
        figures.grid_figure([], 0.1)
    with pytest.raises(SettingsError, match=r"FMR 0\.5"):
        Panel.of(evaluations[0], 0.5)


def test_the_grid_of_the_same_and_another_model(evaluations) -> None:
    """Where notes differ from row to row, the row says which it is; nothing is cut off."""
    same = Panel.of(evaluations[0], 0.1)
    lines = [dataclasses.replace(line, note=line.note and "C") for line in same.lines]
    other = dataclasses.replace(same, recogniser="other", lines=tuple(lines))
    lines = [dataclasses.replace(line, note=line.note and "S") for line in same.lines]
    same = dataclasses.replace(same, lines=tuple(lines))
    figure = figures.grid_figure([same, other], 0.1)
    assert [axes.get_ylabel() for axes in figure.axes] == ["sface (S)\nFNMR", "other (C)\nFNMR"]
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.texts]
    assert len(labels) == len(set(labels)) == len(same.lines) + 1
    assert "FaceQAN" in labels
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_det(evaluations) -> None:
    (axes,) = figures.det_figure(evaluations[:1]).axes
    line = axes.get_lines()[0]
    det = evaluations[0].det
    for fmr, fnmr in zip(*line.get_data(), strict=True):
        assert fnmr in det.fnmr
        assert fmr == 1 or fmr in det.fmr
    assert f"EER {100 * det.eer:.2f} %" in line.get_label()


@pytest.mark.parametrize("kind", FIGURE_FORMATS)
def test_files_are_deterministic(evaluations, tmp_path: Path, kind: str) -> None:
    files = [tmp_path / f"{name}.{kind}" for name in "ab"]
    figures.save(figures.edc_figure(evaluations[0], 0.1), files[0])
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "svg.hashsalt": "other"}):
        figures.save(figures.edc_figure(evaluations[0], 0.1), files[1])
    assert files[0].read_bytes() == files[1].read_bytes()
    assert dict(mpl.rcParams) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_png_has_content(evaluations, tmp_path: Path) -> None:
    figures.save(figures.det_figure(evaluations), tmp_path / "det.png")
    pixels = decode_bytes((tmp_path / "det.png").read_bytes(), max_pixels=10**7)
    assert pixels.shape[1] > 900
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_names_are_no_mathematics(evaluations, tmp_path: Path) -> None:
    one = evaluations[2]
    figure = figures.edc_figure(one, 0.1)
    assert any(HOSTILE.replace("$", r"\$") in t.get_text() for t in figure.legends[0].texts)
    odd = dataclasses.replace(one, dataset="$x^", recogniser="_hidden")
    figures.save(figures.grid_figure([Panel.of(odd, 0.1)], 0.1), tmp_path / "odd.svg")


def test_other_formats_are_refused(evaluations, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="pdf, svg, png"):
        figures.save(figures.edc_figure(evaluations[0], 0.1), tmp_path / "figure.bmp")


def test_matplotlib_is_an_extra(evaluations, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match=r"faceqan-toolkit\[evaluate\]"):
        figures.edc_figure(evaluations[0], 0.1)
