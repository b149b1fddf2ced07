"""The user's own pairs: a CSV file with the columns a, b, label."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from faceqan_toolkit.evaluation.datasets.base import Dataset, IssueLog, ListBuilder, inner_path
from faceqan_toolkit.evaluation.datasets.registry import register_dataset
from faceqan_toolkit.files import to_utf8
from faceqan_toolkit.text import reason_of

COLUMNS = ("a", "b", "label")
LABELS = {"1": True, "0": False}


@register_dataset(
    "pairs",
    help="Your own list of pairs of photos below ROOT.",
    faces="largest",
    root="the folder that the paths of your list are relative to",
    size="yours",
    layout="`--pairs` names a CSV file with exactly the columns `a`, `b` and `label` in any order; "
    "1 is a mated pair, 0 a non-mated one. Photos that mated pairs connect show the same person.",
    own=True,
)
def read_pairs(root: Path, *, pairs: Path) -> Dataset:
    """Return the comparisons of a CSV file.

    Args:
        root: folder that the paths in the file are relative to.
        pairs: CSV file with the columns `COLUMNS`.
    """
    root, log, builder = Path(root), IssueLog(), ListBuilder()
    file = Path(pairs)
    builder.open(file.name)
    try:
        text = to_utf8(file.read_bytes()).decode("utf-8", "surrogateescape")
        _parse(text, file.name, builder, log)
    except FileNotFoundError:
        log.add("missing_list", "no such file", file.name)
    except (OSError, ValueError, csv.Error) as error:
        log.add("unreadable_list", reason_of(error), file.name)
    found = builder.pairs(None)
    return Dataset("pairs", root, tuple(builder.samples), builder.identities(found), found, log=log)


def _parse(text: str, shown: str, builder: ListBuilder, log: IssueLog) -> None:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    places: dict[str, int] | None = None
    for cells in reader:
        line = reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if places is None:
            names = [cell.strip() for cell in cells]
            if sorted(names) != sorted(COLUMNS):
                listed = ", ".join(names)[:80]
                found = f"found {listed}" if listed.isprintable() else "the file is not text"
                log.add("header", f"the columns must be a, b, label; {found}", shown, line)
                return
            places = {name: names.index(name) for name in COLUMNS}
            continue
        if len(cells) != len(COLUMNS):
            log.add("malformed_row", f"{len(cells)} cells instead of 3", shown, line)
            continue
        paths = [inner_path(cells[places[column]].strip()) for column in ("a", "b")]
        label = LABELS.get(cells[places["label"]].strip())
        if paths[0] is None or paths[1] is None:
            message = "a path that is empty, absolute or leads out of the folder"
            log.add("malformed_row", message, shown, line)
        elif label is None:
            message = f"the label must be 1 or 0, not {cells[places['label']][:50]!r}"
            log.add("malformed_row", message, shown, line)
        else:
            builder.pair(builder.sample(paths[0]), builder.sample(paths[1]), label, line)
    if places is None:
        log.add("header", "the file is empty", shown)
