"""Parts of messages: counts of things, and what an error says."""

from __future__ import annotations

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


def reason_of(error: Exception) -> str:
    """Return why something failed: of the system's errors without their number and file.

    Examples:
        >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.jpg"))
        'No such file or directory'
    """
    return getattr(error, "strerror", None) or str(error)


def short_checksum(checksum: str) -> str:
    """Return the first digits of a checksum, enough to tell files apart.

    Examples:
        >>> short_checksum("4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43")
        '4c06341c33c2'
    """
    return checksum[:12]


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, short; its kind if it says nothing."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
