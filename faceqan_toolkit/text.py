"""Numbers, counts, errors, CSV cells and paths as text."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

RESIZED = "resized from"
"""Begins the note of a crop that had another size than the model's."""
LIKE_A_CROP = "the photo looks like an aligned crop, which the command score takes as it is"
"""Note of a photo that was aligned before, and is aligned again."""


def counted(number: int, noun: str) -> str:
    """Return a number of things.

    Examples:
        >>> counted(1, "photo"), counted(1200, "photo")
        ('1 photo', '1,200 photos')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_names(names: Iterable[str], most: int = 5) -> str:
    """Return the first of some names, and how many more there are.

    Examples:
        >>> first_names("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def reason_of(error: Exception) -> str:
    """Return why something failed: of the system's errors without their number and file.

    Examples:
        >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.jpg"))
        'No such file or directory'
    """
    return getattr(error, "strerror", None) or str(error)


def short_checksum(checksum: str) -> str:
    """Return the first 12 digits of a checksum, enough to tell files apart."""
    return checksum[:12]


def first_line(error: Exception, *, kind: bool = False) -> str:
    """Return the first line of what an error says, short; its kind if it says nothing.

    With `kind` the line begins with the error's kind.
    """
    line, name = str(error).strip().partition("\n")[0][:200], type(error).__name__
    return f"{name}: {line}" if kind and line else line or name


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")


def guard(text: str) -> str:
    """Return text with an apostrophe before it if a spreadsheet could run it as a formula.

    Examples:
        >>> print(guard("=1+1"), guard("ann.jpg"), unguard(guard("=1+1")))
        '=1+1 ann.jpg =1+1
    """
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def unguard(cell: str) -> str:
    """Return the text `guard` was given."""
    return cell[1:] if cell.startswith("'") else cell


def guard_sql(column: str) -> str:
    """Return the SQL expression that guards a text column, for DuckDB."""
    starts = ", ".join(f"chr({ord(start)})" for start in FORMULA_STARTS)
    return f"CASE WHEN left({column}, 1) IN ({starts}) THEN chr(39) || {column} ELSE {column} END"


MOST_DECIMALS = 20


def rounded_down(value: float, decimals: int) -> float:
    """Return the largest number of so many decimals that is not above a value.

    Examples:
        >>> rounded_down(0.76149, 4), rounded_down(-0.76141, 4), rounded_down(0.7614, 4)
        (0.7614, -0.7615, 0.7614)
    """
    scale = 10.0**decimals
    if not value or not math.isfinite(value * scale):
        return value
    nearest = round(value * scale)
    return (nearest - (nearest / scale > value)) / scale


def rounded_down_sql(column: str, decimals: int) -> str:
    """Return the SQL expression that does the same with a column of doubles, for DuckDB."""
    scale = f"1e{decimals:d}"
    nearest = f"round({column} * {scale})"
    return f"({nearest} - CAST({nearest} / {scale} > {column} AS INTEGER)) / {scale}"


def down_text(value: float, decimals: int) -> str:
    """Return a number rounded down to so many decimals.

    Examples:
        >>> down_text(0.89999998, 2), down_text(19.6, 0)
        ('0.89', '19')
    """
    return f"{rounded_down(value, decimals):.{decimals}f}"


def exact_text(value: float, decimals: int = 0) -> str:
    """Return the shortest text of at least so many decimals that reads back as the same number.

    Examples:
        >>> exact_text(0.5), exact_text(20.0), exact_text(0.5, 4), exact_text(0.123456, 4)
        ('0.5', '20', '0.5000', '0.123456')
    """
    for places in range(decimals, MOST_DECIMALS):
        text = f"{value:.{places}f}"
        if float(text) == value:
            return text
    return repr(value)


def shortest_between(low: float, high: float, decimals: int = 4) -> float:
    """Return a number above `low` and at most `high` with at least, and few, `decimals`.

    Examples:
        >>> shortest_between(0.3, 0.33664), shortest_between(0.336602, 0.336641)
        (0.3366, 0.33664)
    """
    for places in range(decimals, MOST_DECIMALS):
        if (found := rounded_down(high, places)) > low:
            return found
    return high


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

    `path` is the photo's in results; `index` the face's, or another word for what is kept.

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
