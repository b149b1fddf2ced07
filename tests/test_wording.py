"""Parts of messages."""

from __future__ import annotations

import errno
import os

from faceqan_toolkit.wording import counted, first_line, reason_of


def test_counts() -> None:
    assert [counted(number, "photo") for number in (0, 1, 2, 1200)] == [
        "0 photos",
        "1 photo",
        "2 photos",
        "1,200 photos",
    ]


def test_reasons() -> None:
    assert reason_of(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a.jpg")) == (
        os.strerror(errno.ENOENT)
    )
    assert reason_of(OSError("the disk is gone")) == "the disk is gone"
    assert reason_of(ValueError("no number")) == "no number"


def test_first_lines() -> None:
    assert first_line(RuntimeError("\n one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(RuntimeError("x" * 1000))) == 200
