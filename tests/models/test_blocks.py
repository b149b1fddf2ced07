"""Checks of the caller's crops, and arithmetic on GPUs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.blocks import arithmetic, check_batch
from faceqan_toolkit.quality.faceqan import FaceQAN
from tests.toys import SIZE, Toy

GOOD = np.zeros((SIZE, SIZE, 3), np.uint8)
EXPECTED = r"expected a list of 8x8x3 uint8 RGB crops, or an array of shape \(N, 8, 8, 3\)"
MISTAKES = {
    "one crop": (GOOD, rf"a single crop, an array of shape \(8, 8, 3\); {EXPECTED}.*\[crop\]"),
    "one channel": (np.zeros((2, 8), np.uint8), rf"an array of shape \(2, 8\); {EXPECTED}"),
    "text": ("crop.png", f"got a str; {EXPECTED}"),
    "bytes": (b"\x89PNG", f"got a bytes; {EXPECTED}"),
    "generator": (iter([GOOD]), f"got a list_iterator; {EXPECTED}"),
    "tensor": (torch.zeros(1, 3, 8, 8), f"got a Tensor; {EXPECTED}"),
    "files": ([GOOD, "crop.png"], f"crop 1 is a str; {EXPECTED}"),
    "floats": (
        [GOOD / 255],
        r"crop 0 has shape \(8, 8, 3\) and type float64; .*astype\(np.uint8\)",
    ),
    "wrong size": ([np.zeros((9, 8, 3), np.uint8)], "crop 0 has shape .9, 8, 3.*resize it to 8x8"),
    "channels first": (np.zeros((2, 3, 8, 8), np.uint8), "crop 0 has shape .3, 8, 8.*uint8"),
    "grey": ([np.zeros((8, 8), np.uint8)], rf"shape \(8, 8\) and type uint8; {EXPECTED}$"),
}


@pytest.mark.parametrize(("crops", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told(crops, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_batch(crops, SIZE)


@pytest.mark.parametrize("crops", [[], [GOOD], (GOOD, GOOD), np.zeros((2, 8, 8, 3), np.uint8)])
def test_batches(crops) -> None:
    check_batch(crops, SIZE)


def test_models_and_estimators_share_the_check() -> None:
    for use in (
        lambda crops: Toy().embed(crops, device="cpu"),
        FaceQAN(Toy(), device="cpu", backend="torch").score,
    ):
        with pytest.raises(SettingsError, match=EXPECTED):
            use(GOOD)


@pytest.mark.parametrize(("precision", "rounded"), [("float32", False), ("tf32", True)])
def test_precision_is_what_it_says_and_nobody_else_is_touched(precision: str, rounded) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic
    with arithmetic(torch.device("cuda"), precision):
        assert cudnn.allow_tf32 is matmul.allow_tf32 is rounded
        assert cudnn.deterministic
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic) == before
    with pytest.raises(RuntimeError, match="full"), arithmetic(torch.device("cuda"), precision):
        raise RuntimeError("full")
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic) == before
