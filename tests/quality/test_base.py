"""Sizes of blocks, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.quality.base import copies_that_fit, feature_map_bytes
from faceqan_toolkit.quality.faceqan import FaceQAN


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))


def test_feature_maps_are_counted() -> None:
    # two maps of 8 x 16 x 16, their flattening, the embedding; four bytes a number
    assert feature_map_bytes(network(), 16) == 4 * (3 * 8 * 16 * 16 + 5)


@pytest.mark.parametrize(("crops", "expected"), [(1, 1), (2, 2), (3, 2), (7.9, 4), (64, 64)])
def test_copies_fill_half_of_the_memory(crops: float, expected: int) -> None:
    free = int(2 * crops * feature_map_bytes(network(), 16)) + 1
    assert copies_that_fit(free, network(), 16) == expected


def test_copies_are_never_none_and_never_endless() -> None:
    assert copies_that_fit(0, network(), 16) == 1
    assert copies_that_fit(10**15, nn.Flatten(), 4) == 4096


def test_counting_leaves_nothing_behind() -> None:
    counted = network()
    before = feature_map_bytes(counted, 16)
    assert feature_map_bytes(counted, 16) == before
    assert not any(module._forward_hooks for module in counted.modules())
    assert torch.is_grad_enabled()


def test_coarser_precision_is_for_gpus() -> None:
    with pytest.raises(SettingsError, match="`precision` tf32 is for `device` cuda, not cpu"):
        FaceQAN(precision="tf32", device="cpu")
