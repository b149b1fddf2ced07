"""Text files in any encoding, and safe writing."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceqan_toolkit.files import (
    HEAD_BYTES,
    encoding_of,
    is_file,
    is_folder,
    open_text,
    parse_json,
    to_utf8,
)
from tests.conftest import in_every_encoding

TEXT = "ann/ä.jpg\r\n写真/😀.jpg\n"


def read(file: Path, data: bytes, errors: str = "strict") -> str:
    file.write_bytes(data)
    with open_text(file, errors) as text:
        return text.read()


def test_the_mark_tells_the_encoding(tmp_path: Path) -> None:
    every = in_every_encoding(TEXT * 1000)
    assert len(set(every)) == 6
    for data in every:
        assert to_utf8(data) == (TEXT * 1000).encode()
        assert read(tmp_path / "a", data) == TEXT * 1000
        assert read(tmp_path / "a", data, "surrogateescape") == TEXT * 1000


def test_without_a_mark_nothing_is_copied() -> None:
    data = b"caf\xe9.jpg\n"
    assert to_utf8(data) is data


def test_bytes_that_are_no_text_stay_if_they_may(tmp_path: Path) -> None:
    assert read(tmp_path / "a", b"caf\xe9", "surrogateescape") == "caf\udce9"
    with pytest.raises(ValueError, match=r"^it is not UTF-8; save it as UTF-8$"):
        read(tmp_path / "a", b"caf\xe9")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\xfea\0b", "UTF-16"),
        (b"\xfe\xff\xd8\0\0a", "UTF-16"),
        (b"\xff\xfe\0\0a\0\0", "UTF-32"),
        (b"\xef\xbb\xbfcaf\xe9", "UTF-8"),
    ],
)
def test_what_its_mark_does_not_fit(tmp_path: Path, data: bytes, name: str) -> None:
    message = f"^its mark says {name}, but it is not that; save it as UTF-8$"
    with pytest.raises(ValueError, match=message):
        to_utf8(data)
    for errors in ("strict", "surrogateescape"):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "a", data, errors)


def test_a_fault_far_behind_is_told_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a,b\n" * 100_000 + b"\xff\n")
    with pytest.raises(ValueError, match="not UTF-8"), open_text(tmp_path / "a") as lines:
        for _ in lines:
            pass


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_without_a_mark_these_are_not_guessed(tmp_path: Path, encoding: str) -> None:
    for reader in (to_utf8, lambda data: read(tmp_path / "a", data)):
        with pytest.raises(ValueError, match="UTF-16 without a byte order mark; save it as UTF-8"):
            reader(TEXT.encode(encoding))


def packed() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a", "text")
    return content.getvalue()


def picture(extension: str) -> bytes:
    return cv2.imencode(extension, np.zeros((20, 20, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        *((picture(f".{name}"), f"a {name.upper()} picture") for name in ("png", "bmp")),
        (picture(".jpg"), "a JPEG picture"),
        (picture(".tif"), "a TIFF picture"),
        (picture(".webp"), "a WebP picture"),
        (packed(), "an Excel, zip or .npz file"),
        (gzip.compress(b"a.jpg\n"), "a file packed with gzip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_text_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(ValueError, match=f"^it is {kind}, not text$"):
        encoding_of(data[:HEAD_BYTES])


@given(st.binary(max_size=40))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert b"\0" not in to_utf8(data)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**63, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_what_json_writes_comes_back(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "text",
    ["", "{", "[NaN]", "-Infinity", "1e999", "[-1e999]", str(2**63), "1" * 5000, "[" * 100_000,
     b"\xff"],
)  # fmt: skip
def test_what_no_reader_could_use(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whose words they are does not matter
        parse_json(text)


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "nowhere"])
def test_names_that_no_file_system_takes_are_no_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").touch()
    assert not is_file(tmp_path / name)
    assert not is_folder(tmp_path / name)
    assert is_file(tmp_path / "a")
    assert is_folder(tmp_path)
