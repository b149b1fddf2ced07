"""Files of an evaluation: summary, tables, figures, HTML page; read back to draw a grid."""

from __future__ import annotations

import csv
import json
import os
import platform
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceqan_toolkit.errors import EvaluationError, RunError, SettingsError
from faceqan_toolkit.evaluation.curves import Curve
from faceqan_toolkit.evaluation.figures import (
    Line,
    Panel,
    det_figure,
    edc_figure,
    grid_figure,
    save,
)
from faceqan_toolkit.evaluation.options import FIGURE_FORMATS
from faceqan_toolkit.evaluation.page import page
from faceqan_toolkit.evaluation.result import Evaluation
from faceqan_toolkit.evaluation.tables import areas_csv, curves_csv, latex, markdown
from faceqan_toolkit.evaluation.verification import Floats
from faceqan_toolkit.files import open_text, parse_json, read_text, sha256_of, write_text
from faceqan_toolkit.runs.folder import versions
from faceqan_toolkit.text import path_text, reason_of, unguard

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_evaluation(
    evaluations: Sequence[Evaluation],
    folder: Path,
    made_by: Mapping[str, str] | None = None,
    *,
    figures: Sequence[str] = FIGURE_FORMATS,
) -> list[Path]:
    """Write the files of evaluations; equal evaluations give equal bytes.

    Without matplotlib no figures are written.

    Args:
        evaluations: one or more evaluations; several also make a grid.
        folder: output folder; created if missing. Files of the same names are replaced.
        made_by: provenance by name, see `made_by`.
        figures: formats of the figures.

    Returns:
        the written files, in order.

    Raises:
        RunError: a file cannot be written.
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
    written = []
    for name, text in texts.items():
        write_text(folder / name, text)
        written.append(folder / name)
    if find_spec("matplotlib") is None:
        return written
    for stem, figure in _figures(evaluations):
        for kind in figures:
            save(figure, folder / f"{stem}.{kind}")
            written.append(folder / f"{stem}.{kind}")
    return written


def _figures(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, Figure]]:
    """Yield every figure with the stem of its file name."""
    yield "det", det_figure(evaluations)
    common = set.intersection(*(set(one.options.fmr_targets) for one in evaluations))
    pairs = {(one.recogniser, one.dataset) for one in evaluations}
    if len(evaluations) > 1 and len(pairs) == len(evaluations):
        for target in sorted(common, reverse=True):
            yield (
                f"grid_fmr{target:g}",
                grid_figure([Panel.of(one, target) for one in evaluations], target),
            )
    for number, one in enumerate(evaluations, 1):
        stem = "edc" if len(evaluations) == 1 else f"edc_{number}"
        for target in one.options.fmr_targets:
            yield f"{stem}_fmr{target:g}", edc_figure(one, target)


def made_by(arguments: Sequence[str], files: Mapping[str, Path]) -> dict[str, str]:
    """Return the provenance of an evaluation: command, versions, checksums of files.

    Args:
        arguments: arguments of the command line.
        files: input files by description.
    """
    command = shlex.join(["faceqan-toolkit", *arguments])
    made = {"command": path_text(command) if os.sep == "/" else command}
    made["python"] = f"{platform.python_version()} on {sys.platform} {platform.machine()}"
    made |= {name: text for name, text in versions().items() if text != "missing"}
    for what, file in files.items():
        if file.is_file():
            made[f"{what} sha256"] = sha256_of(file)
    return made


def read_panels(folder: Path, fmr: float) -> list[Panel]:
    """Return the panels of a folder from `write_evaluation`.

    Raises:
        EvaluationError: a file is missing or damaged.
        SettingsError: this FMR was not evaluated.
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
            curve = Curve(
                _column(rows, "discard"),
                _column(rows, "fnmr"),
                _column(rows, "errors").astype(np.int64),
                _column(rows, "mated").astype(np.int64),
                staircase or kind in ("random", "oracle"),
            )
            if kind == "random":
                low, high = _column(rows, "low"), _column(rows, "high")
        lines.append(Line(name, kind, method["note"], curve))
    panel = Panel(*names, one["options"]["edc"], fnmr0, tuple(lines), low, high)
    _ = panel.random
    return panel


def _column(rows: list[dict[str, str]], name: str) -> Floats:
    return np.array([float(row[name]) for row in rows])
