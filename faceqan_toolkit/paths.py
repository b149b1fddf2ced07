"""Paths as results show them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import PurePosixPath

LONGEST_NAME = 200
"""Bytes of a crop's file name; file systems allow 255."""

_UNSAFE = re.compile(r"%(?=[0-9A-Fa-f]{2})|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def path_text(path: str | os.PathLike[str]) -> str:
    r"""Return a relative path as text for results: forward slashes, everything printable.

    Bytes that are no text, control characters and the percent sign of what looks like an escape
    are percent-encoded; `path_from_text` undoes it.

    Examples:
        >>> path_text("ann/new\nline.jpg"), path_text("50%.jpg"), path_text("%41.jpg")
        ('ann/new%0Aline.jpg', '50%.jpg', '%2541.jpg')
        >>> path_from_text("%2541.jpg")
        '%41.jpg'
    """
    text = os.fspath(path).replace(os.sep, "/")
    return _UNSAFE.sub(
        lambda found: "".join(f"%{b:02X}" for b in found[0].encode("utf-8", "surrogateescape")),
        text,
    )


def path_from_text(text: str) -> str:
    """Return the path that `path_text` was given, with forward slashes."""
    raw = re.sub(
        rb"%([0-9A-Fa-f]{2})",
        lambda found: bytes([int(found[1], 16)]),
        text.encode("utf-8", "surrogateescape"),
    )
    return raw.decode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    r"""Return text for a terminal and for one line of a table, whoever wrote it.

    Line breaks become spaces; what controls a terminal, or is no text, becomes visible.

    Examples:
        >>> print(printable("two\nlines, \x1b[31mred"))
        two lines, \x1b[31mred
    """
    return _CONTROLS.sub(
        lambda found: found[0].encode("unicode_escape").decode("ascii"), " ".join(text.splitlines())
    )


def crop_path(path: str, index: int | str) -> PurePosixPath:
    """Return where a face's crop lies below `crops/`; long names are cut and hashed.

    Args:
        path: of the photo, as results show it.
        index: of the face, or another word for what is kept of the photo.

    Examples:
        >>> str(crop_path("ann/1.jpg", 0))
        'ann/1.jpg.0.png'
        >>> len(crop_path("long" * 100 + ".jpg", 0).name)
        200
    """
    parts = []
    for part in f"{path}.{index}.png".split("/"):
        raw = part.encode()
        if len(raw) > LONGEST_NAME:
            digest = hashlib.sha256(raw).hexdigest()[:16]
            suffix = f"~{digest}.png" if part.endswith(".png") else f"~{digest}"
            part = raw[: LONGEST_NAME - len(suffix)].decode(errors="ignore") + suffix
        parts.append(part)
    return PurePosixPath(*parts)
