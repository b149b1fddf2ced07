"""What the smaller commands of `evaluate` do: validate, agree, grid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.cli.show_evaluation import print_agreement
from faceqan_toolkit.evaluation.datasets.registry import read_dataset
from faceqan_toolkit.evaluation.datasets.validation import validate as validate_dataset
from faceqan_toolkit.evaluation.evaluate import scores_of
from faceqan_toolkit.evaluation.figures import figure_format, grid_figure, save, scatter_figure
from faceqan_toolkit.evaluation.result_files import read_panels
from faceqan_toolkit.evaluation.statistics import agree as compare_scores
from faceqan_toolkit.files import absolute
from faceqan_toolkit.results.groups import IdentityRule


def validate(
    name: str, root: Path, pairs: Path | None, identity: str | None, *, as_json: bool
) -> bool:
    """Print what is there and what is wrong; return whether the data set is usable."""
    rule = IdentityRule.parse(identity) if identity else None
    dataset = read_dataset(name, root, pairs=pairs, identity=rule, strict=False)
    if dataset.people:
        Reporter().message(dataset.people)
    report = validate_dataset(dataset)
    text = json.dumps(report.as_dict(), indent=1) if as_json else "\n".join(report.lines())
    click.echo(text)
    return report.ok


def agree(first: str, second: str, output: Path | None, movers: int, *, as_json: bool) -> None:
    """Print how two tools' scores agree, and draw one against the other."""
    if output is not None:
        figure_format(output)
    tables = [scores_of(given) for given in (first, second)]
    for table, file in tables:
        if remarks := table.remarks():
            Reporter().message(f"{table.name}, {file}: {'; '.join(remarks)}")
    if tables[0][0].name == tables[1][0].name:
        tables = [
            (replace(table, name=f"{absolute(file).parent.name}/{table.name}"), file)
            for table, file in tables
        ]
    agreement = compare_scores(tables[0][0], tables[1][0])
    if as_json:
        click.echo(json.dumps(agreement.as_dict(movers), indent=1))
    else:
        print_agreement(agreement, movers)
    if output is not None:
        _write(scatter_figure(agreement), output)


def grid(folders: Sequence[Path], output: Path, fmr: float) -> None:
    """Draw the curves of several evaluations."""
    figure_format(output)
    panels = [panel for folder in folders for panel in read_panels(folder, fmr)]
    _write(grid_figure(panels, fmr), output)


def _write(figure: Any, output: Path) -> None:
    save(figure, output)
    Reporter().message(f"Written: {output}")
