"""Scores on an NVIDIA GPU against those on the CPU. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from faceqan_toolkit.engines.choice import make_engine
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.quality.faceqan import FaceQAN, InstantFaceQAN
from faceqan_toolkit.settings import Settings
from tests.conftest import DATA, SAMPLES, read_rgb
from tests.engines.pipelines import by_path

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Engines change the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


ACROSS_DEVICES = 0.003
"""What the README promises."""


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    names = [path for path in sorted(DATA.glob("*.png")) if path.name != "grey.png"]
    return [read_rgb(path) for path in names]


def qualities(scorer, crops) -> np.ndarray:
    return np.array([score.quality for score in scorer.score(crops)])


@pytest.mark.parametrize("copies", [10, 2], ids=["exact", "fast"])
@pytest.mark.parametrize(
    "backend",
    ["torch", pytest.param("compile", marks=pytest.mark.filterwarnings("ignore"))],
)
def test_measured_scores(crops, copies: int, backend: str) -> None:
    expected = qualities(FaceQAN(device="cpu", backend="torch", copies=copies), crops)
    scorer = FaceQAN(device="cuda", backend=backend, copies=copies)
    found = qualities(scorer, crops)
    np.testing.assert_allclose(found, expected, atol=ACROSS_DEVICES)
    # company, and a recording's second and third use, change nothing
    np.testing.assert_array_equal(qualities(scorer, crops[::-1]), found[::-1])
    np.testing.assert_array_equal(qualities(scorer, crops * 3), np.tile(found, 3))


def test_predicted_scores(crops) -> None:
    expected, found = (
        qualities(InstantFaceQAN(device=device), crops * 4) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(found, expected, atol=ACROSS_DEVICES)


def test_tf32_ranks_as_float32_does(crops) -> None:
    # crops between those of the test data
    mixed = [
        np.uint8(share * one + (1 - share) * other)
        for one in crops
        for other in crops
        for share in (0.3, 0.7)
    ]
    exact, rounded = (
        qualities(FaceQAN(device="cuda", precision=precision), mixed)
        for precision in ("float32", "tf32")
    )
    assert not np.array_equal(exact, rounded)
    assert spearmanr(exact, rounded)[0] > 0.97


def test_out_of_memory_makes_blocks_smaller(crops, monkeypatch) -> None:
    scorer = FaceQAN(device="cuda", backend="torch")
    expected = qualities(scorer, crops)
    compute, sizes = scorer._score_block, []

    def full(faces):
        sizes.append(len(faces))
        if len(faces) > 1:
            raise torch.OutOfMemoryError("full")
        return compute(faces)

    monkeypatch.setattr(scorer, "_score_block", full)
    np.testing.assert_allclose(qualities(scorer, crops), expected, atol=ACROSS_DEVICES)
    assert sizes[0] >= sizes[-1] == 1


@pytest.mark.parametrize("detector", ["mtcnn", "yunet"])
def test_the_whole_in_two_processes(detector: str, tmp_path: Path) -> None:
    """On two GPUs if there are two, else side by side on one."""
    sources = list(find_photos([str(SAMPLES)]))
    options = {"faces": "all", "preset": "fast", "detector": detector}
    found = {}
    for device, workers in (("cuda", 2), ("cuda:0", 1), ("cpu", 1)):
        settings = Settings(device=device, workers=workers, backend="torch", **options)
        engine = make_engine(settings, len(sources))
        assert engine.workers == workers
        found[device] = by_path(list(engine.run(sources, settings, None)))
    assert found["cuda"].keys() == found["cuda:0"].keys() == found["cpu"].keys()
    for path, rows in found["cpu"].items():
        for other in (found["cuda"][path], found["cuda:0"][path]):
            assert [row.status for row in other] == [row.status for row in rows]
            for one, two in zip(rows, other, strict=True):
                if one.quality is not None:
                    assert two.quality == pytest.approx(one.quality, abs=0.02)
