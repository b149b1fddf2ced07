"""Writes an evaluation's files: summary, tables, figures, page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.evaluation.options import FIGURE_FORMATS
from faceqan_toolkit.evaluation.page import page
from faceqan_toolkit.evaluation.panels import Panel
from faceqan_toolkit.evaluation.plots import det_figure, edc_figure, grid_figure, save
from faceqan_toolkit.evaluation.summary import Evaluation
from faceqan_toolkit.evaluation.tables import areas_csv, curves_csv, latex, markdown
from faceqan_toolkit.files import write_text
from faceqan_toolkit.wording import reason_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_evaluation(
    evaluations: Sequence[Evaluation],
    folder: Path,
    made_by: Mapping[str, str] | None = None,
    *,
    figures: Sequence[str] = FIGURE_FORMATS,
) -> list[Path]:
    """Write everything about one or more evaluations; equal evaluations give equal bytes.

    Without matplotlib no figures are written.

    Args:
        evaluations: at least one; several make a grid too.
        folder: made if it is not there; files of the same names are replaced.
        made_by: the exact command, versions and checksums, by name.
        figures: formats of the figures.

    Returns:
        the files, in the order they were written.

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
    """Yield every figure with its file's stem."""
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
