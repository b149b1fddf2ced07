"""Paths as text, and back."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.paths import crop_path, path_from_text, path_text, printable

names = st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw)


@pytest.mark.skipif(os.name == "nt", reason="paths are bytes on POSIX only")
@given(names)
def test_any_bytes_come_back(raw: bytes) -> None:
    text = path_text(os.fsdecode(raw))
    assert os.fsencode(path_from_text(text)) == raw
    assert text.isprintable() or any(ord(c) > 127 for c in text)
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain/a.jpg", "plain/a.jpg"),
        (b"100%.jpg", "100%.jpg"),
        (b"100%41.jpg", "100%2541.jpg"),
        (b"a\nb", "a%0Ab"),
        (b"\xff\xfe", "%FF%FE"),
        ("日本.jpg".encode(), "日本.jpg"),
        ("\u2028".encode(), "%E2%80%A8"),
    ],
)
def test_known_texts(raw: bytes, text: str) -> None:
    assert path_text(os.fsdecode(raw)) == text


@given(st.text(min_size=1, max_size=300).filter(lambda t: "/" not in t), st.integers(0, 999))
def test_crop_names_fit_file_systems(name: str, index: int) -> None:
    for part in crop_path(path_text(name), index).parts:
        assert len(os.fsencode(part)) <= 255


def test_long_names_stay_different() -> None:
    one, other = (crop_path("folder/" + "x" * 300 + end, 0) for end in ("a.jpg", "b.jpg"))
    assert one != other
    assert one.suffix == other.suffix == ".png"
    assert crop_path("a/b.jpg", 2).as_posix() == "a/b.jpg.2.png"


@given(st.text())
def test_printable_is_one_line_that_controls_no_terminal(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in shown)
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown


def test_printable() -> None:
    assert printable("a\x1b[31mb\nc\x9d \udcff \u00e9") == "a\\x1b[31mb c\\x9d \\udcff \u00e9"
