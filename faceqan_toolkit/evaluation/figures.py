"""Figures for papers: error-versus-discard curves, single or as a grid, DET curves, scatter plots.

Equal evaluations give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceqan_toolkit.errors import MissingDependency, SettingsError
from faceqan_toolkit.evaluation.curves import Curve
from faceqan_toolkit.evaluation.options import FIGURE_FORMATS
from faceqan_toolkit.evaluation.result import Evaluation
from faceqan_toolkit.evaluation.verification import Floats
from faceqan_toolkit.files import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from faceqan_toolkit.evaluation.statistics import Agreement

LIMIT = 0.95
"""Largest discard share shown."""
HANDLE_LENGTH = 4.5
"""Length of the lines in legends, in font sizes; fits the longest dashes."""
SPREAD = "random, 95 % of draws"
LEGEND_ENTRY, LEGEND_LETTER = 0.75, 0.05
"""Width in inches of a line and of a letter in a grid's legend."""
STYLE = {
    "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.6, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#DDDDDD", "grid.linewidth": 0.5,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "lines.solid_capstyle": "butt",
    "legend.frameon": False, "pdf.fonttype": 42, "svg.hashsalt": "faceqan-toolkit",
    "svg.fonttype": "path", "savefig.dpi": 200, "figure.dpi": 100,
}  # fmt: skip

# Colours of Okabe and Ito, which colour-blind people can tell apart. Every method also has its own
# dashes, for print in grey. Only the oracle is black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BLACK, GREY = "#000000", "#6E6E6E"

Dashes = tuple[float, ...]
DASHES: tuple[Dashes, ...] = (
    (), (5, 1.5), (5, 1.5, 1, 1.5), (2.5, 1.2), (9, 2), (5, 1.5, 1, 1.5, 1, 1.5),
    (2.5, 1.2, 1, 1.2), (9, 2, 2.5, 2), (9, 2, 1, 2), (5, 1.5, 2.5, 1.5), (9, 2, 1, 2, 1, 2),
    (9, 2, 2.5, 2, 2.5, 2),
)  # fmt: skip
"""Lengths of dashes and gaps in line widths; empty for a solid line."""

ORACLE: Dashes = (1, 1.2)
RANDOM: Dashes = (1, 3)


@dataclass(frozen=True)
class Line:
    """A method's curve; the attributes are those of `result.MethodResult`."""

    name: str
    kind: str
    note: str
    curve: Curve

    @property
    def label(self) -> str:
        """Name and note for the legend."""
        return _plain(f"{self.name} ({self.note})" if self.note else self.name)


@dataclass(frozen=True)
class Panel:
    """The curves of one data set and recogniser at one FMR target.

    Attributes:
        edc: "fixed" or "recompute".
        fnmr0: false non-match rate before discarding.
        low, high: (S,) 2.5 % and 97.5 % quantiles of random qualities, at their curve's shares.
    """

    dataset: str
    recogniser: str
    edc: str
    fnmr0: float
    lines: tuple[Line, ...]
    low: Floats
    high: Floats

    @property
    def title(self) -> str:
        """Data set and recogniser."""
        return f"{self.dataset}, {self.recogniser}"

    @property
    def x_label(self) -> str:
        """Name of the x axis."""
        return f"Share of {'mated' if self.edc == 'fixed' else 'all'} comparisons discarded"

    @property
    def random(self) -> Curve:
        """Mean curve of random qualities."""
        return next(line.curve for line in self.lines if line.kind == "random")

    @classmethod
    def of(cls, evaluation: Evaluation, fmr: float) -> Panel:
        """Return the panel of an evaluation; SettingsError if this FMR was not evaluated."""
        point = evaluation.point(fmr)
        lines = [
            Line(method.name, method.kind, method.note, method.figures[point].curve)
            for method in evaluation.methods
        ]
        spread = evaluation.random[point]
        return cls(
            evaluation.dataset, evaluation.recogniser, evaluation.options.edc,
            evaluation.points[point].fnmr0, tuple(lines), spread.low, spread.high,
        )  # fmt: skip


def edc_figure(evaluation: Evaluation, fmr: float) -> Figure:
    """Return error-versus-discard curves of all methods at an FMR target.

    MissingDependency without matplotlib; SettingsError if this FMR was not evaluated.
    """
    panel = Panel.of(evaluation, fmr)
    with _style() as new_figure:
        figure = new_figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.subplots()
        _draw(axes, panel)
        axes.set(title=_plain(panel.title), xlabel=panel.x_label, ylabel=f"FNMR at FMR {fmr:g}")
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside right center",
            handlelength=HANDLE_LENGTH,
        )  # fmt: skip
        return figure


def grid_figure(panels: Sequence[Panel], fmr: float) -> Figure:
    """Return a grid of curves: a row for each recogniser, a column for each data set.

    Missing panels stay empty. MissingDependency without matplotlib; SettingsError if there is no
    panel, or two of the same recogniser and data set.
    """
    cells = {(one.recogniser, one.dataset): one for one in panels}
    if not cells or len(cells) < len(panels):
        raise SettingsError("a grid needs one evaluation for each recogniser and data set")
    if len(_notes(panels)) > 1:  # the labels of the rows have them, the legend cannot
        for key, panel in cells.items():
            plain = tuple(replace(line, note="") for line in panel.lines)
            cells[key] = replace(panel, lines=plain)
    rows = list(dict.fromkeys(one.recogniser for one in panels))
    columns = list(dict.fromkeys(one.dataset for one in panels))
    names = list(dict.fromkeys(line.name for one in panels for line in one.lines))
    with _style() as new_figure:
        width = 2.1 * len(columns) + 0.5
        entry = LEGEND_ENTRY + LEGEND_LETTER * max(map(len, [*names, SPREAD]))
        fitting = max(1, int(width / entry))
        lines = -(-(len(names) + 1) // fitting)
        size = (width, 1.75 * len(rows) + 0.5 + 0.16 * lines)
        figure = new_figure(figsize=size, layout="constrained")
        places = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True)
        handles: dict[str, Any] = {}
        for row, recogniser in enumerate(rows):
            for column, dataset in enumerate(columns):
                axes, one = places[row, column], cells.get((recogniser, dataset))
                if one is None:
                    axes.set_axis_off()
                else:
                    _draw(axes, one, names)
                    found = axes.get_legend_handles_labels()
                    handles |= dict(zip(found[1], found[0], strict=True))
                if row == 0:
                    axes.set_title(_plain(dataset))
                if column == 0:
                    notes = _notes(one for one in panels if one.recogniser == recogniser)
                    note = f" ({notes.pop()})" if len(notes) == 1 else ""
                    axes.set_ylabel(f"{_plain(recogniser)}{note}\nFNMR")
        figure.supxlabel(f"{panels[0].x_label} (FMR {fmr:g})", fontsize=8)
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center",
            ncols=min(fitting, len(handles)), handlelength=HANDLE_LENGTH,
        )  # fmt: skip
        return figure


def det_figure(evaluations: Sequence[Evaluation]) -> Figure:
    """Return DET curves with logarithmic axes and a mark at the equal error rate."""
    with _style() as new_figure:
        figure = new_figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        lowest = 1.0
        for index, one in enumerate(evaluations):
            style = _line_style("det", index)
            smallest = (1 / one.non_mated, 1 / one.mated)
            # both corners of every step, down to a rate of one error
            fmr = np.concatenate([[1.0], np.repeat(one.det.fmr, 2)[:-1]])
            fnmr = np.repeat(one.det.fnmr, 2)
            keep = (fmr >= smallest[0]) & (fnmr >= smallest[1])
            label = f"{_plain(one.title)}: EER {100 * one.det.eer:.2f} %"
            axes.plot(*_thinned(fmr[keep], fnmr[keep]), **style, label=label)
            axes.plot([one.det.eer], [one.det.eer], "o", color=style["color"], markersize=3.5)
            lowest = min(lowest, *smallest)
        axes.plot([lowest, 1], [lowest, 1], color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
        axes.set(xscale="log", yscale="log", xlabel="FMR", ylabel="FNMR")
        axes.set_xlim(_decade(min(1 / one.non_mated for one in evaluations)), 1)
        axes.set_ylim(_decade(min(1 / one.mated for one in evaluations)), 1)
        figure.legend(loc="outside lower center", ncols=1, handlelength=HANDLE_LENGTH)
        return figure


def scatter_figure(agreement: Agreement) -> Figure:
    """Return a scatter plot of two tools' scores of the same photos."""
    with _style() as new_figure:
        figure = new_figure(figsize=(3.6, 3.4), layout="constrained")
        axes = figure.subplots()
        number = len(agreement.paths)
        axes.plot(
            agreement.first, agreement.second, "o", color=COLOURS[0], markeredgewidth=0,
            markersize=3 if number < 2000 else 1.5, alpha=min(0.7, max(0.1, 700 / number)),
            rasterized=number > 2000,
        )  # fmt: skip
        axes.set(xlabel=_plain(agreement.names[0]), ylabel=_plain(agreement.names[1]))
        shown = "-" if agreement.spearman is None else f"{agreement.spearman:.3f}"
        axes.set_title(f"Spearman {shown}, {number:,} photos")
        return figure


def figure_format(target: Path) -> str:
    """Return the format of a figure by the file's suffix; SettingsError for an unknown one."""
    kind = target.suffix.lower().lstrip(".")
    if kind not in FIGURE_FORMATS:
        known = ", ".join(FIGURE_FORMATS)
        raise SettingsError(f"{target.name}: the suffix of a figure must be one of {known}")
    return kind


def save(figure: Figure, target: Path) -> None:
    """Write a figure without its date; RunError, and no partial file, if that is impossible.

    SettingsError if the file's suffix is not one of `FIGURE_FORMATS`.
    """
    kind = figure_format(target)
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}
    with _style(), writing(target) as temporary:
        figure.savefig(temporary, format=kind, metadata=metadata[kind])


@contextmanager
def _style() -> Iterator[type[Figure]]:
    """Apply this module's style instead of the user's; yield matplotlib's Figure."""
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(
            "figures need matplotlib: pip install 'faceqan-toolkit[evaluate]'"
        ) from error
    with style.context(["default", STYLE]):
        yield Figure


def pen(index: int) -> tuple[int, int]:
    """Return the indices of the colour and the dashes of the n-th method; no pair repeats."""
    turn, dashes = divmod(index, len(DASHES))
    return (dashes + turn) % len(COLOURS), dashes


def _draw(axes: Axes, panel: Panel, names: Iterable[str] | None = None) -> None:
    """Draw all curves of a panel; `names` gives the order of the pens, equal across panels."""
    order = list(names or [line.name for line in panel.lines])
    shares = panel.random.discard
    shown = shares <= LIMIT
    axes.fill_between(
        shares[shown], panel.low[shown], panel.high[shown], color="#BBBBBB", alpha=0.45,
        linewidth=0, label=SPREAD,
    )  # fmt: skip
    top = 0.0
    for line in panel.lines:
        x, y = _line(line.curve, LIMIT)
        axes.plot(x, y, label=line.label, **_line_style(line.kind, order.index(line.name)))
        if line.kind != "random":
            top = max(top, float(np.max(y[x <= 0.7 * LIMIT], initial=0)))
    axes.set_xlim(0, LIMIT)
    axes.set_ylim(0, 1.08 * max(top, 1.3 * panel.fnmr0) or 1)


def _line_style(kind: str, index: int) -> dict[str, Any]:
    """Return the style of a curve's kind, or of the n-th method, as matplotlib's arguments."""
    colour, dashes = pen(index)
    own = COLOURS[colour], DASHES[dashes]
    baselines = {"oracle": (BLACK, ORACLE), "random": (GREY, RANDOM)}
    shade, pattern = baselines.get(kind, own)
    width = {"oracle": 1.1, "random": 1.1, "simple": 0.9, "det": 1.3}.get(kind, 1.4)
    return {"color": shade, "linewidth": width, "linestyle": (0, pattern) if pattern else "solid"}


def _line(curve: Curve, limit: float) -> tuple[Floats, Floats]:
    """Return the points of a curve's polyline up to a discard share."""
    if not curve.staircase:
        return _thinned(curve.discard, curve.fnmr)
    shown = curve.discard <= limit
    x = np.repeat(np.append(curve.discard[shown], limit), 2)[1:-1]
    return _thinned(x, np.repeat(curve.fnmr[shown], 2))


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return a polyline without the inner points of horizontal and vertical runs."""
    if len(x) < 3:
        return x, y
    inner = ((x[1:-1] == x[:-2]) & (x[1:-1] == x[2:])) | ((y[1:-1] == y[:-2]) & (y[1:-1] == y[2:]))
    keep = np.concatenate([[True], ~inner, [True]])
    return x[keep], y[keep]


def _notes(panels: Iterable[Panel]) -> set[str]:
    return {line.note for one in panels for line in one.lines if line.note}


def _plain(text: str) -> str:
    """Return text escaped so that matplotlib shows it as it is, also in the legend."""
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def _decade(rate: float) -> float:
    """Return the power of ten at or below a rate, at most 0.1."""
    return min(0.1, float(10 ** np.floor(np.log10(rate))))
