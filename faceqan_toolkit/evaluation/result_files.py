"""Files of an evaluation: summary, tables, HTML page, figures; read back to draw a grid.

Equal evaluations give equal bytes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from faceqan_toolkit.errors import EvaluationError, RunError, SettingsError
from faceqan_toolkit.evaluation.curves import CURVE_SHARES, Curve, Interval
from faceqan_toolkit.evaluation.figures import (
    DASHES,
    ORACLE,
    RANDOM,
    Line,
    Panel,
    det_figure,
    edc_figure,
    grid_figure,
    pen,
    save,
)
from faceqan_toolkit.evaluation.options import FIGURE_FORMATS
from faceqan_toolkit.evaluation.result import Evaluation, Figures, MethodResult, Point
from faceqan_toolkit.evaluation.verification import Floats
from faceqan_toolkit.files import open_text, parse_json, read_text, sha256_of, write_text
from faceqan_toolkit.runs.folder import versions
from faceqan_toolkit.text import guard, path_text, reason_of, unguard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_SHARES = np.arange(381) / 400
"""Discard shares of the curves on the page, 0 to 0.95; curves.csv has every step."""
AREA_COLUMNS = (
    "dataset", "recogniser", "method", "kind", "note", "target", "achieved_fmr", "false_matches",
    "errors", "mated", "fnmr0", "limit", "pauc", "pauc_low", "pauc_high", "pauc_normalised",
    "pauc_normalised_low", "pauc_normalised_high", "gap_to_ideal", "warnings",
)  # fmt: skip
CURVE_COLUMNS = (
    "dataset", "recogniser", "method", "target", "discard", "fnmr", "errors", "mated",
    "low", "high",
)  # fmt: skip
LATEX = str.maketrans({
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
})  # fmt: skip


def areas_csv(evaluations: Iterable[Evaluation]) -> str:
    """Return a CSV row for every method, operating point and limit."""
    return _csv(AREA_COLUMNS, (
        (
            one.dataset, one.recogniser, method.name, method.kind, method.note, point.name,
            repr(point.fmr), point.false_matches, point.errors, one.mated, repr(point.fnmr0),
            area.limit, area.raw, *_ends(area.interval), area.normalised,
            *_ends(area.normalised_interval), area.gap,
            "; ".join((*point.warnings, *figures.warnings)),
        )
        for one, method, point, figures in _figures(evaluations)
        for area in figures.areas
    ))  # fmt: skip


def curves_csv(evaluations: Iterable[Evaluation]) -> str:
    """Return a CSV row for every step of every curve; the last rate holds up to a share of 1.

    For "random" the columns low and high are the 2.5 % and 97.5 % quantiles of its draws.
    """
    return _csv(CURVE_COLUMNS, _curve_rows(evaluations))


def markdown(evaluations: Iterable[Evaluation]) -> str:
    """Return a table of normalised pAUCs, up to the first limit, for every evaluation.

    The best method at each operating point is bold; simple measures and baselines are not compared.
    """
    parts = []
    for evaluation in evaluations:
        points = evaluation.points
        lines = [["method", *(point.name for point in points)]]
        lines.append(["---", *["---:"] * len(points)])
        for method, cells in _cells(evaluation, "**{}**"):
            lines.append([_markdown(method.label), *cells])
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        notes = "\n".join(f"- {_markdown(note)}" for note in _notes(evaluation))
        parts.append(f"### {_markdown(evaluation.title)}\n\n{body}\n\n{notes}\n")
    return "\n".join(parts)


def latex(evaluations: Iterable[Evaluation]) -> str:
    """Return the table of `markdown` as LaTeX for the package booktabs, with a note below it."""
    parts = []
    for evaluation in evaluations:
        points = evaluation.points
        share = evaluation.options.limits[0]
        caption = (
            f"{evaluation.title}: normalised area under the error-versus-discard curve up to a "
            f"discard share of {share:g}; lower is better."
        )
        lines = [
            r"\begin{table}", r"\centering", rf"\caption{{{_latex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(points)}}}", r"\toprule",
            " & ".join(["Method", *(_latex(point.name) for point in points)]) + r" \\",
            r"\midrule",
        ]  # fmt: skip
        kind = "quality"
        for method, cells in _cells(evaluation, r"\textbf{{{}}}"):
            if method.kind != kind and method.kind in ("simple", "random"):
                lines.append(r"\midrule")
            kind = method.kind
            lines.append(" & ".join([_latex(method.label), *cells]) + r" \\")
        lines += [
            r"\bottomrule", r"\end{tabular}", r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize", *map(_latex, _notes(evaluation)),
            r"\end{minipage}", r"\end{table}",
        ]  # fmt: skip
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with fixed decimals, or "-" for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def between(value: Interval | None, digits: int = 3) -> str:
    """Return an interval in brackets, or "" for None."""
    return "" if value is None else f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def best_methods(evaluation: Evaluation, point: int, limit: int = 0) -> set[str]:
    """Return the quality methods with the smallest area at a point; several if tied."""
    areas = {
        method.name: method.figures[point].areas[limit].raw
        for method in evaluation.methods
        if method.kind == "quality"
    }
    if len(areas) < 2 or not evaluation.points[point].errors:
        return set()
    return {name for name, raw in areas.items() if raw == min(areas.values())}


def _cells(evaluation: Evaluation, bold: str) -> Iterator[tuple[MethodResult, list[str]]]:
    """Yield each method with its normalised area at each point; the best in a bold format."""
    best = [best_methods(evaluation, index) for index in range(len(evaluation.points))]
    for method in evaluation.methods:
        cells = []
        for figures, names in zip(method.figures, best, strict=True):
            area, form = figures.areas[0], bold if method.name in names else "{}"
            cells.append(form.format(number(area.normalised)) + between(area.normalised_interval))
        yield method, cells


def _notes(evaluation: Evaluation) -> Iterator[str]:
    options = evaluation.options
    methods = [method for method in evaluation.methods if method.kind != "random"]
    areas = [area for method in methods for figures in method.figures for area in figures.areas]
    note = (
        "Area under the error-versus-discard curve up to a discard share of "
        f"{options.limits[0]:g}, divided by that of no discarding"
    )
    if any(area.normalised_interval for area in areas):
        note += f"; in brackets {100 * options.level:g} % intervals over identities"
    yield f"{note}."
    threshold = "fixed" if options.edc == "fixed" else "recomputed at every share"
    note = f"Threshold {threshold}; quality of a pair: {options.pair_quality}"
    if options.template_quality:
        note += f", of a template: {options.template_quality}"
    note += f"; {evaluation.mated:,} mated and {evaluation.non_mated:,} non-mated comparisons"
    if evaluation.excluded:
        note += f"; {evaluation.excluded:,} mated ones left out"
    yield f"{note}."
    for point in evaluation.points:
        fmr, fnmr = evaluation.rates(point)
        yield (
            f"{point.name}: achieved FMR {fmr} ({point.false_matches:,} false matches), "
            f"FNMR {fnmr} ({point.errors:,} errors) before discarding."
        )
        for warning in point.warnings:
            yield f"Careful, {point.name}: {warning}."


def _markdown(text: str) -> str:
    for special in "\\`*_[]<>|":
        text = text.replace(special, "\\" + special)
    return " ".join(text.split())


def _latex(text: str) -> str:
    return " ".join(text.split()).translate(LATEX)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    target = io.StringIO()
    cells = ([_cell(value) for value in row] for row in rows)
    csv.writer(target, lineterminator="\n").writerows([columns, *cells])
    return target.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return guard(value)
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _ends(value: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if value is None else (value.low, value.high)


def _figures(
    evaluations: Iterable[Evaluation],
) -> Iterator[tuple[Evaluation, MethodResult, Point, Figures]]:
    for evaluation in evaluations:
        for method in evaluation.methods:
            for point, figures in zip(evaluation.points, method.figures, strict=True):
                yield evaluation, method, point, figures


def _curve_rows(evaluations: Iterable[Evaluation]) -> Iterator[Sequence[Any]]:
    for evaluation, method, point, figures in _figures(evaluations):
        names = (evaluation.dataset, evaluation.recogniser, method.name, point.name)
        curve = figures.curve
        low = high = np.full(len(curve.discard), None)
        if method.kind == "random":
            spread = evaluation.random[evaluation.points.index(point)]
            low, high = spread.low, spread.high
        columns = (curve.discard, curve.fnmr, curve.errors, curve.mated, low, high)
        for step in zip(*(column.tolist() for column in columns), strict=True):
            yield (*names, *step)


def page(evaluations: Sequence[Evaluation], made_by: Mapping[str, str] | None = None) -> str:
    """Return the self-contained HTML page with interactive curves and tables; see `made_by`."""
    environment = Environment(
        loader=PackageLoader("faceqan_toolkit.evaluation"), undefined=StrictUndefined,
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("curves.html.j2").render(
        data={"shares": PAGE_SHARES.tolist(), "pens": _pens(evaluations),
              "evaluations": [_curves(one) for one in evaluations]},
        evaluations=evaluations, made_by=dict(made_by or {}),
        best_methods=best_methods, between=between, number=number,
    )  # fmt: skip


def _pens(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Any]]:
    """Return the colour index and the dashes of each method, equal in all evaluations."""
    methods = {method.name: method.kind for one in evaluations for method in one.methods}
    pens = {}
    for index, (name, kind) in enumerate(methods.items()):
        colour, dashes = pen(index)
        pattern = {"oracle": ORACLE, "random": RANDOM}.get(kind, DASHES[dashes])
        pens[name] = {"colour": colour, "dashes": list(pattern)}
    return pens


def _curves(evaluation: Evaluation) -> dict[str, Any]:
    """Return the curves of an evaluation for the page's script."""
    methods, is_fixed = evaluation.methods, evaluation.options.edc == "fixed"
    return {
        "title": evaluation.title,
        "of": "mated" if is_fixed else "all",
        "staircase": is_fixed,
        "methods": [{name: getattr(method, name) for name in ("name", "note", "kind")}
                    for method in methods],
        "points": [
            {
                "name": point.name,
                "curves": [_rounded(method.figures[index].curve.at(PAGE_SHARES))
                           for method in methods],
                "band": {"shares": _rounded(CURVE_SHARES), "low": _rounded(random.low),
                         "high": _rounded(random.high)},
            }
            for index, (point, random) in enumerate(
                zip(evaluation.points, evaluation.random, strict=True)
            )
        ],
    }  # fmt: skip


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def write_evaluation(
    evaluations: Sequence[Evaluation], folder: Path, made_by: Mapping[str, str] | None = None, *,
    figures: Sequence[str] = FIGURE_FORMATS,
) -> list[Path]:  # fmt: skip
    """Write the files of evaluations and return them, in order; RunError if one cannot be written.

    The folder is created if missing; files of the same names are replaced. Several evaluations also
    make a grid. Without matplotlib no figures are written.

    Args:
        made_by: provenance by name, see `made_by`.
        figures: formats of the figures.
    """
    summary = {
        "made_by": dict(made_by or {}),
        "evaluations": [one.to_dict() for one in evaluations],
    }
    texts = {
        "summary.json": json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False) + "\n",
        "areas.csv": areas_csv(evaluations),
        "curves.csv": curves_csv(evaluations),
        "tables.md": markdown(evaluations),
        "tables.tex": latex(evaluations),
        "evaluation.html": page(evaluations, made_by),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {reason_of(error)}") from error
    written = [folder / name for name in texts]
    for file, text in zip(written, texts.values(), strict=True):
        write_text(file, text)
    for stem, figure in _drawn(evaluations) if find_spec("matplotlib") else ():
        for kind in figures:
            written.append(folder / f"{stem}.{kind}")
            save(figure, written[-1])
    return written


def _drawn(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, Figure]]:
    yield "det", det_figure(evaluations)
    common = set.intersection(*(set(one.options.fmr_targets) for one in evaluations))
    pairs = {(one.recogniser, one.dataset) for one in evaluations}
    if len(evaluations) > 1 and len(pairs) == len(evaluations):
        for target in sorted(common, reverse=True):
            panels = [Panel.of(one, target) for one in evaluations]
            yield f"grid_fmr{target:g}", grid_figure(panels, target)
    for place, one in enumerate(evaluations, 1):
        stem = "edc" if len(evaluations) == 1 else f"edc_{place}"
        for target in one.options.fmr_targets:
            yield f"{stem}_fmr{target:g}", edc_figure(one, target)


def made_by(arguments: Sequence[str], files: Mapping[str, Path]) -> dict[str, str]:
    """Return the provenance of an evaluation: command, versions, checksums of described files."""
    command = shlex.join(["faceqan-toolkit", *arguments])
    return {
        "command": path_text(command) if os.sep == "/" else command,
        "python": f"{platform.python_version()} on {sys.platform} {platform.machine()}",
        **{name: text for name, text in versions().items() if text != "missing"},
        **{f"{what} sha256": sha256_of(file) for what, file in files.items() if file.is_file()},
    }


def read_panels(folder: Path, fmr: float) -> list[Panel]:
    """Return the panels of a folder from `write_evaluation`.

    EvaluationError if a file is missing or damaged; SettingsError if this FMR was not evaluated.
    """
    summary, table = folder / "summary.json", folder / "curves.csv"
    with _naming(summary):
        evaluations = parse_json(read_text(summary))["evaluations"]
    curves: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    with _naming(table), open_text(table) as lines:
        for row in csv.DictReader(lines):
            if row["target"] == f"FMR {fmr:g}":
                key = tuple(unguard(row[name]) for name in ("dataset", "recogniser", "method"))
                curves[key].append(row)
    with _naming(summary):
        return [_panel(folder, one, curves, fmr) for one in evaluations]


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Turn errors of a damaged file into an EvaluationError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise EvaluationError(f"{file.parent} holds no evaluation: it has no {file.name}") from None
    except OSError as error:
        raise EvaluationError(f"cannot read {file}: {reason_of(error)}") from error
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, csv.Error) as error:
        raise EvaluationError(f"{file} is damaged, or was not written by evaluate") from error


def _panel(
    folder: Path, one: dict[str, Any], curves: dict[tuple[str, ...], list[dict[str, str]]],
    fmr: float,
) -> Panel:  # fmt: skip
    names = (one["dataset"], one["recogniser"])
    staircase = one["options"]["edc"] == "fixed"
    lines, low, high, fnmr0 = [], np.empty(0), np.empty(0), 0.0
    for name, method in one["methods"].items():
        target = method["targets"].get(f"{fmr:g}")
        if target is None:
            raise SettingsError(f"{folder}: FMR {fmr:g} was not evaluated on {', '.join(names)}")
        rows = curves[(*names, name)]
        kind, fnmr0 = method["kind"], target["fnmr0"]
        if not rows:
            raise EvaluationError(f"{folder / 'curves.csv'} lacks a method of summary.json")
        with _naming(folder / "curves.csv"):
            discard, fnmr, errors, mated = _columns(rows, "discard", "fnmr", "errors", "mated")
            curve = Curve(
                discard, fnmr, errors.astype(np.int64), mated.astype(np.int64),
                staircase or kind in ("random", "oracle"),
            )  # fmt: skip
            if kind == "random":
                low, high = _columns(rows, "low", "high")
        lines.append(Line(name, kind, method["note"], curve))
    panel = Panel(*names, one["options"]["edc"], fnmr0, tuple(lines), low, high)
    _ = panel.random  # fails without one
    return panel


def _columns(rows: list[dict[str, str]], *names: str) -> list[Floats]:
    return [np.array([float(row[name]) for row in rows]) for name in names]
