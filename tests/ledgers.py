"""Runs written straight to the ledger: real files, scores from nowhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.runs.folder import RunInfo, RunWriter, read_run
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record


def write_run(
    folder: Path, records: Iterable[Record], settings: Settings | None = None, weights: str = ""
) -> RunInfo:
    """Return a run of these records; a photo's records stand together."""
    settings = settings or Settings()
    with RunWriter(
        folder, settings, weights or find_model("sface").weights(settings.preset)
    ) as run:
        for _, of_photo in groupby(records, key=lambda record: record.path):
            run.append(list(of_photo))
        run.write_info({})
    return read_run(folder)


def photo(root: Path, path: str, content: bytes | None = None) -> dict[str, object]:
    """Write a file and return what its record says of it."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(os.fsencode(path) * 20 if content is None else content)
    state = file.stat()
    return {
        "path": path,
        "root": str(root),
        "file_size": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def face(
    root: Path,
    path: str,
    quality: float,
    index: int = 0,
    *,
    content: bytes | None = None,
    **values: object,
) -> Record:
    """Return a scored face of a photo that is written for it."""
    return Record(**photo(root, path, content), face=index, status="ok", quality=quality, **values)


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones and links' targets left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    }
