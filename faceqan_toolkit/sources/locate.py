"""A photo of a run, found again by what its records say of it."""

from __future__ import annotations

from pathlib import Path

from faceqan_toolkit.errors import PhotoError
from faceqan_toolkit.paths import path_from_text
from faceqan_toolkit.sources.local import LocalFile
from faceqan_toolkit.types import PhotoSource


def locate(root: str, path: str, faces: frozenset[int] | None = None) -> PhotoSource:
    """Return the photo that a record's `root` and `path` name, whether it is there or not.

    Args:
        root: of the record.
        path: of the record.
        faces: the faces that are wanted; None means all.
    """
    file = Path(path_from_text(root)) / path_from_text(path)
    return PhotoSource(root, path, LocalFile(file), faces)


def is_there(source: PhotoSource) -> bool:
    """Tell whether a photo can be looked at."""
    try:
        source.content.state()
    except PhotoError:
        return False
    return True
