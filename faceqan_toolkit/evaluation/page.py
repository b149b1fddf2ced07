"""Self-contained HTML page with interactive error-versus-discard curves and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from faceqan_toolkit.evaluation.figures import DASHES, ORACLE, RANDOM, pen
from faceqan_toolkit.evaluation.result import Evaluation
from faceqan_toolkit.evaluation.tables import best_methods, between, number

SHARES = np.arange(381) / 400
"""Discard shares of the curves on the page, 0 to 0.95; curves.csv has every step."""


def page(evaluations: Sequence[Evaluation], made_by: Mapping[str, str] | None = None) -> str:
    """Return the page.

    Args:
        evaluations: evaluations of any data sets and recognisers.
        made_by: provenance by name: command, versions, checksums.
    """
    environment = Environment(
        loader=PackageLoader("faceqan_toolkit.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("curves.html.j2").render(
        data={
            "shares": SHARES.tolist(),
            "pens": _pens(evaluations),
            "evaluations": [_curves(one) for one in evaluations],
        },
        tables=[
            _table(one, place, point)
            for place, one in enumerate(evaluations)
            for point in range(len(one.points))
        ],
        evaluations=evaluations,
        made_by=dict(made_by or {}),
    )


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
    return {
        "title": evaluation.title,
        "of": "mated" if evaluation.options.edc == "fixed" else "all",
        "staircase": evaluation.options.edc == "fixed",
        "methods": [
            {"name": method.name, "note": method.note, "kind": method.kind}
            for method in evaluation.methods
        ],
        "points": [
            {
                "name": point.name,
                "curves": [
                    _rounded(method.figures[index].curve.at(SHARES))
                    for method in evaluation.methods
                ],
                "band": {
                    "shares": _rounded(evaluation.random[index].shares),
                    "low": _rounded(evaluation.random[index].low),
                    "high": _rounded(evaluation.random[index].high),
                },
            }
            for index, point in enumerate(evaluation.points)
        ],
    }


def _table(evaluation: Evaluation, place: int, index: int) -> dict[str, Any]:
    """Return the table of one evaluation and operating point."""
    limits = evaluation.options.limits
    best = [best_methods(evaluation, index, limit) for limit in range(len(limits))]
    rows = []
    for method in evaluation.methods:
        figures = method.figures[index]
        rows.append(
            {
                "method": method,
                "cells": [
                    {
                        "text": number(area.normalised),
                        "interval": between(figures.normalised_intervals[limit]),
                        "raw": f"raw {area.raw:.3g}, gap to the oracle {max(area.gap, 0):.3g}",
                        "best": method.name in best[limit],
                    }
                    for limit, area in enumerate(figures.areas)
                ],
                "at": number(float(figures.curve.at(limits[0])), 4),
                "warnings": figures.warnings,
            }
        )
    fmr, fnmr = evaluation.rates(evaluation.points[index])
    return {
        "evaluation": evaluation,
        "fmr": fmr,
        "fnmr": fnmr,
        "place": place,
        "index": index,
        "point": evaluation.points[index],
        "start": between(evaluation.fnmr0_intervals[index], 4),
        "limits": limits,
        "rows": rows,
    }


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
