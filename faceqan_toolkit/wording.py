"""Parts of messages: counts of things, and what an error says."""

from __future__ import annotations


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


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, short; its kind if it says nothing."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
