"""The run that a command is given to look at."""

from __future__ import annotations

from pathlib import Path

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.runs.folder import RunInfo, read_run


def given_run(folder: Path) -> RunInfo:
    """Return what a run folder says of itself.

    Raises:
        RunError: it is no run folder, or its records are gone.
    """
    run = read_run(folder)
    if any((run.content.get("counts") or {}).values()) and not run.ledger.parts:
        raise RunError(
            f"{folder} has lost its records: run.json counts some, {run.ledger.folder} has none; "
            "give the command that made the run again"
        )
    return run
