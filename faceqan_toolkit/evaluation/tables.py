"""Tables of evaluations as CSV, Markdown and LaTeX; equal evaluations give equal bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from faceqan_toolkit.evaluation.bootstrap import Interval
from faceqan_toolkit.evaluation.result import Evaluation, Figures, MethodResult, Point
from faceqan_toolkit.text import guard

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
    return _csv(AREA_COLUMNS, _area_rows(evaluations))


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
        points, rows = _rows(evaluation)
        header = ["method", *(point.name for point in points)]
        lines = [header, ["---", *["---:"] * len(points)]]
        for method, cells in rows:
            lines.append([
                _markdown(_label(method)),
                *(f"**{text}**{rest}" if best else text + rest for text, rest, best in cells),
            ])  # fmt: skip
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        notes = "\n".join(f"- {_markdown(note)}" for note in _notes(evaluation))
        parts.append(f"### {_markdown(evaluation.title)}\n\n{body}\n\n{notes}\n")
    return "\n".join(parts)


def latex(evaluations: Iterable[Evaluation]) -> str:
    """Return the table of `markdown` as LaTeX for the package booktabs, with a note below it."""
    parts = []
    for evaluation in evaluations:
        points, rows = _rows(evaluation)
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
        for method, cells in rows:
            if method.kind != kind and method.kind in ("simple", "random"):
                lines.append(r"\midrule")
            kind = method.kind
            row = [
                _latex(_label(method)),
                *((rf"\textbf{{{text}}}" if best else text) + rest for text, rest, best in cells),
            ]
            lines.append(" & ".join(row) + r" \\")
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


def best_methods(evaluation: Evaluation, point: int, limit: int) -> set[str]:
    """Return the quality methods with the smallest area at a point; several if tied."""
    areas = {
        method.name: method.figures[point].areas[limit].raw
        for method in evaluation.methods
        if method.kind == "quality"
    }
    if len(areas) < 2 or not evaluation.points[point].errors:
        return set()
    return {name for name, raw in areas.items() if raw == min(areas.values())}


Cell = tuple[str, str, bool]


def _rows(
    evaluation: Evaluation,
) -> tuple[Sequence[Point], list[tuple[MethodResult, list[Cell]]]]:
    best = [best_methods(evaluation, index, 0) for index in range(len(evaluation.points))]
    rows = []
    for method in evaluation.methods:
        cells = [
            (
                number(figures.areas[0].normalised),
                between(figures.normalised_intervals[0]),
                method.name in best[index],
            )
            for index, figures in enumerate(method.figures)
        ]
        rows.append((method, cells))
    return evaluation.points, rows


def _notes(evaluation: Evaluation) -> Iterator[str]:
    """Yield the notes below a table."""
    options = evaluation.options
    share = options.limits[0]
    intervals = any(
        one is not None
        for method in evaluation.methods
        if method.kind != "random"
        for figures in method.figures
        for one in figures.normalised_intervals
    )
    text = f"Area under the error-versus-discard curve up to a discard share of {share:g}, divided "
    text += "by that of no discarding"
    text += (
        f"; in brackets {100 * options.level:g} % intervals over identities." if intervals else "."
    )
    yield text
    threshold = "fixed" if options.edc == "fixed" else "recomputed at every share"
    yield (
        f"Threshold {threshold}; quality of a pair: {options.pair_quality}"
        + (f", of a template: {options.template_quality}" if options.template_quality else "")
        + f"; {evaluation.mated:,} mated and {evaluation.non_mated:,} non-mated comparisons"
        + (f"; {evaluation.excluded:,} mated ones left out." if evaluation.excluded else ".")
    )
    for point in evaluation.points:
        fmr, fnmr = evaluation.rates(point)
        yield (
            f"{point.name}: achieved FMR {fmr} ({point.false_matches:,} false matches), "
            f"FNMR {fnmr} ({point.errors:,} errors) before discarding."
        )
        for warning in point.warnings:
            yield f"Careful, {point.name}: {warning}."


def _label(method: MethodResult) -> str:
    return f"{method.name} ({method.note})" if method.note else method.name


def _markdown(text: str) -> str:
    for special in "\\`*_[]<>|":
        text = text.replace(special, "\\" + special)
    return " ".join(text.split())


def _latex(text: str) -> str:
    return " ".join(text.split()).translate(LATEX)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
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


def _area_rows(evaluations: Iterable[Evaluation]) -> Iterator[Sequence[Any]]:
    for evaluation, method, point, figures in _figures(evaluations):
        for place, area in enumerate(figures.areas):
            yield (
                evaluation.dataset, evaluation.recogniser, method.name, method.kind, method.note,
                point.name, repr(point.fmr), point.false_matches, point.errors, evaluation.mated,
                repr(point.fnmr0), area.limit, area.raw, *_ends(figures.intervals[place]),
                area.normalised, *_ends(figures.normalised_intervals[place]), area.gap,
                "; ".join((*point.warnings, *figures.warnings)),
            )  # fmt: skip


def _curve_rows(evaluations: Iterable[Evaluation]) -> Iterator[Sequence[Any]]:
    for evaluation, method, point, figures in _figures(evaluations):
        names = (evaluation.dataset, evaluation.recogniser, method.name, point.name)
        curve = figures.curve
        low: Sequence[float | None] = [None] * len(curve.discard)
        high = low
        if method.kind == "random":
            spread = evaluation.random[evaluation.points.index(point)]
            low, high = spread.low.tolist(), spread.high.tolist()
        for step in zip(
            curve.discard.tolist(), curve.fnmr.tolist(), curve.errors.tolist(),
            curve.mated.tolist(), low, high, strict=True,
        ):  # fmt: skip
            yield (*names, *step)
