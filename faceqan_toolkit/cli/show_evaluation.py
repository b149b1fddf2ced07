"""Evaluations and agreements as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.cli.show import make_console
from faceqan_toolkit.cli.tables import Cell, Column, cells_of, print_table
from faceqan_toolkit.evaluation.result import Evaluation
from faceqan_toolkit.evaluation.result_files import between, number
from faceqan_toolkit.evaluation.statistics import Agreement
from faceqan_toolkit.text import printable


def print_evaluation(evaluation: Evaluation, files: Sequence[Path]) -> None:
    """Print a table on standard output; what stands behind it and the files on standard error."""
    limit = evaluation.options.limits[0]
    out, tell = make_console(stderr=False), Reporter()
    columns = [Column("method", least=16)]
    columns += [Column(one.name, right=True, least=len(one.name)) for one in evaluation.points]
    rows = []
    for method in evaluation.methods:
        areas = [one.areas[0] for one in method.figures]
        figures = (
            (number(area.normalised), between(area.normalised_interval).strip()) for area in areas
        )
        rows.append([Cell(method.label), *(Cell(*figure, gap=" ") for figure in figures)])
    out.print(Text(f"{evaluation.title}: normalised pAUC to {limit:g}, lower is better", "italic"))
    print_table(out, columns, rows)
    left_out = f", {evaluation.excluded:,} mated left out" if evaluation.excluded else ""
    tell.message(
        f"{evaluation.mated:,} mated, {evaluation.non_mated:,} non-mated comparisons{left_out}; "
        f"EER {100 * evaluation.det.eer:.2f} %"
    )
    if evaluation.accuracy:
        accuracy = evaluation.accuracy
        tell.message(
            f"Accuracy {100 * accuracy.mean:.2f} % +- {100 * accuracy.standard_error:.2f} "
            f"over {len(accuracy.by_fold)} folds"
        )
    for point in evaluation.points:
        fmr, fnmr = evaluation.rates(point)
        tell.message(
            f"{point.name}: achieved FMR {fmr} ({point.false_matches:,} false matches), "
            f"FNMR {fnmr} ({point.errors:,} errors)"
        )
        for warning in point.warnings:
            tell.warn(f"{point.name}: {warning}")
    for file in files:
        if file.suffix in (".html", ".json", ".md"):
            tell.message(f"Written: {file}")


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
    columns = [
        Column("moved", lambda row: f"{row['moved']:+.1f}", right=True),
        Column("percentile", lambda row: f"{row['first_percentile']:.1f}", right=True, drop=1),
        Column("then", lambda row: f"{row['second_percentile']:.1f}", right=True, drop=1),
        Column(first, lambda row: f"{row['first']:.4f}", right=True, least=8, is_path=True),
        Column(second, lambda row: f"{row['second']:.4f}", right=True, least=8, is_path=True),
        Column("path", lambda row: printable(row["path"]), least=20, is_path=True),
    ]
    print_table(out, columns, cells_of(columns, agreement.movers(movers)))
