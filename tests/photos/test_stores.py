"""Photos that are files of their own."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import pytest

from faceqan_toolkit.errors import TooLarge
from faceqan_toolkit.photos import stores
from faceqan_toolkit.photos.stores import LocalFile

UNSIZED = Path("/proc/self/environ")
"""Says it has no bytes."""


def test_reading_takes_as_much_memory_as_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"1" * 1_000_000)
    tracemalloc.start()
    try:
        data, state = LocalFile(path).read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(data) == state.size == 1_000_000
    assert peak < 2_100_000


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's files without a size")
def test_a_file_may_have_more_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = UNSIZED.read_bytes()
    assert len(whole) > 10 > UNSIZED.stat().st_size
    assert LocalFile(UNSIZED).read()[0] == whole
    monkeypatch.setattr(stores, "MOST_BYTES", 10)
    with pytest.raises(TooLarge):
        LocalFile(UNSIZED).read()
