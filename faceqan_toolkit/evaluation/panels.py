"""What one panel of error-versus-discard curves shows, of an evaluation or of its files."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faceqan_toolkit.cells import unguard
from faceqan_toolkit.errors import EvaluationError, SettingsError
from faceqan_toolkit.evaluation.comparisons import Floats
from faceqan_toolkit.evaluation.edc import Curve
from faceqan_toolkit.evaluation.summary import Evaluation
from faceqan_toolkit.files import parse_json, read_text
from faceqan_toolkit.text_files import open_text
from faceqan_toolkit.wording import reason_of


@dataclass(frozen=True)
class Line:
    """A method's curve; see `summary.MethodResult`."""

    name: str
    kind: str
    note: str
    curve: Curve


@dataclass(frozen=True)
class Panel:
    """The curves of one data set and recogniser at one FMR target.

    Attributes:
        dataset: name.
        recogniser: name.
        edc: "fixed" or "recompute".
        fnmr0: false non-match rate before discarding.
        lines: of all methods, baselines included.
        low: (S,) lower end of the spread of random qualities, at its curve's shares.
        high: (S,) upper end.
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
    def random(self) -> Curve:
        """The mean curve of random qualities."""
        return next(line.curve for line in self.lines if line.kind == "random")

    @classmethod
    def of(cls, evaluation: Evaluation, fmr: float) -> Panel:
        """Return an evaluation's panel.

        Raises:
            SettingsError: that target was not evaluated.
        """
        point = evaluation.point(fmr)
        lines = (
            Line(method.name, method.kind, method.note, method.figures[point].curve)
            for method in evaluation.methods
        )
        spread = evaluation.random[point]
        return cls(
            evaluation.dataset, evaluation.recogniser, evaluation.options.edc,
            evaluation.points[point].fnmr0, tuple(lines), spread.low, spread.high,
        )  # fmt: skip


def read_panels(folder: Path, fmr: float) -> list[Panel]:
    """Return the panels of what `output.write_evaluation` wrote.

    Raises:
        EvaluationError: the files are not there or not as they were written.
        SettingsError: that target was not evaluated.
    """
    summary, table = folder / "summary.json", folder / "curves.csv"
    with _refusing(summary):
        evaluations = parse_json(read_text(summary))["evaluations"]
    curves: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    with _refusing(table), open_text(table) as lines:
        for row in csv.DictReader(lines):
            if row["target"] == f"FMR {fmr:g}":
                key = tuple(unguard(row[name]) for name in ("dataset", "recogniser", "method"))
                curves[key].append(row)
    with _refusing(summary):
        return [_panel(folder, one, curves, fmr) for one in evaluations]


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Turn whatever is wrong with a file into one error that names it."""
    try:
        yield
    except FileNotFoundError:
        raise EvaluationError(f"{file.parent} holds no evaluation: it has no {file.name}") from None
    except OSError as error:
        raise EvaluationError(f"cannot read {file}: {reason_of(error)}") from error
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, csv.Error) as error:
        raise EvaluationError(f"{file} is damaged, or no evaluation of this tool") from error


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
            raise EvaluationError(f"{folder / 'curves.csv'} lacks a method that summary.json has")
        with _refusing(folder / "curves.csv"):
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
