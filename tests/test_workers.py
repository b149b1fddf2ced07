"""Threads that compute alone leave torch's number of threads as it was for all others."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import HANG

CODE = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np, torch
from faceqan_toolkit.workers import serial_workers

torch.set_num_threads({threads})
pool = serial_workers()
counts = set(pool.map(lambda _: torch.get_num_threads(), range(20)))
later = ThreadPoolExecutor(1).submit(torch.get_num_threads).result()
print(pool._max_workers, counts, torch.get_num_threads(), later)

from skimage.data import astronaut
from faceqan_toolkit.detection.mtcnn import MTCNN
found = MTCNN().detect(astronaut(), 20)
print(found.confidences.tolist(), found.landmarks.tolist())
"""


def run(threads: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(threads=threads)],
        capture_output=True, text=True, check=True, timeout=HANG,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_threads_and_their_results() -> None:
    alone, three = run(1), run(3)
    assert alone[0] == "1 {1} 1 1"
    assert three[0] == "3 {1} 3 3"
    # a face is the same to the last bit however many threads share the work
    assert alone[1] == three[1] != "[] []"
