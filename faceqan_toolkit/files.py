"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faceqan_toolkit.errors import RunError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path that is flushed to the disk and takes the target's name at the end.

    If the body fails, the target stays as it was.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        publish(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, target: Path) -> None:
    """Flush a file that was written to the disk, then give it its name."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(target)


def write_text(target: Path, text: str) -> None:
    """Write a small file whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    try:
        with replacing(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Have the disk know the names in a folder, where folders can be opened at all."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
