"""Freed buffers are kept: the same addresses' pages come back without faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import HANG

PROBE = """
import resource, sys
from faceqan_toolkit.allocator import keep_freed_buffers
if sys.argv[1] == "kept":
    assert keep_freed_buffers()
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        bytearray(b"x") * 20_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(1)
print(faults(20))
"""


def faults(way: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, way], capture_output=True, text=True, check=True, timeout=HANG
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator only")
def test_buffers_are_kept() -> None:
    assert faults("kept") * 10 < faults("given back")
