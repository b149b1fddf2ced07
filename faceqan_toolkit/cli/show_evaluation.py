"""Evaluations and agreements as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from faceqan_toolkit.cli.show import make_console
from faceqan_toolkit.evaluation.agreement import Agreement
from faceqan_toolkit.evaluation.result import Evaluation
from faceqan_toolkit.evaluation.tables import between, number


def print_evaluation(evaluation: Evaluation, files: Sequence[Path]) -> None:
    """Print a table on standard output; what stands behind it and the files on standard error."""
    limit = evaluation.options.limits[0]
    out, people = make_console(stderr=False), make_console(stderr=True)
    table = Table(
        box=None, pad_edge=False, header_style="bold", title_justify="left",
        title=Text(f"{evaluation.title}: normalised pAUC to {limit:g}, lower is better"),
    )  # fmt: skip
    table.add_column("method", overflow="fold")
    for point in evaluation.points:
        table.add_column(point.name, justify="right")
    for method in evaluation.methods:
        name = f"{method.name} ({method.note})" if method.note else method.name
        cells = [
            number(figures.areas[0].normalised) + between(figures.normalised_intervals[0])
            for figures in method.figures
        ]
        table.add_row(Text(name), *cells)
    out.print(table)
    left_out = f", {evaluation.excluded:,} mated left out" if evaluation.excluded else ""
    people.print(
        f"{evaluation.mated:,} mated, {evaluation.non_mated:,} non-mated comparisons{left_out}; "
        f"EER {100 * evaluation.det.eer:.2f} %"
    )
    if evaluation.accuracy:
        accuracy = evaluation.accuracy
        people.print(
            f"Accuracy {100 * accuracy.mean:.2f} % +- {100 * accuracy.standard_error:.2f} "
            f"over {len(accuracy.by_fold)} folds"
        )
    for point in evaluation.points:
        fmr, fnmr = evaluation.rates(point)
        people.print(
            f"{point.name}: achieved FMR {fmr} ({point.false_matches:,} false matches), "
            f"FNMR {fnmr} ({point.errors:,} errors)"
        )
        for warning in point.warnings:
            people.print(f"Careful, {point.name}: {warning}", style="yellow", markup=False)
    for file in files:
        if file.suffix in (".html", ".json", ".md"):
            people.print(f"Written: {file}", markup=False)


def print_agreement(agreement: Agreement, movers: int) -> None:
    """Print how two tools' scores agree, on standard output."""
    out = make_console(stderr=False)
    first, second = agreement.names
    out.print(
        f"{len(agreement.paths):,} photos with both scores: Spearman "
        f"{number(agreement.spearman, 4)}, Pearson {number(agreement.pearson, 4)}",
        markup=False,
    )
    out.print(f"Paths: {'; '.join(agreement.match.lines())}", markup=False)
    for name, count in zip(agreement.names, agreement.without, strict=True):
        if count:
            out.print(f"Without a score in {name}: {count:,}", markup=False)
    if not movers:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("moved", "percentile", "then", first, second):
        table.add_column(Text(name), justify="right")
    table.add_column("path", overflow="fold")
    for row in agreement.movers(movers):
        table.add_row(
            f"{row['moved']:+.1f}", f"{row['first_percentile']:.1f}",
            f"{row['second_percentile']:.1f}", f"{row['first']:.4f}", f"{row['second']:.4f}",
            Text(row["path"]),
        )  # fmt: skip
    out.print(table)
