"""SER-FIQ against loops over its definition, and values known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.quality.serfiq import SERFIQ, draw_masks, last_linear, robustness
from faceqan_toolkit.types import Pixels
from tests.conftest import DATA, read_rgb
from tests.toys import Toy, Wrapped, traced


def by_hand(crop: Pixels, passes: int, dropout: float, seed: int) -> float:
    """The score again, layer by layer from the plain network, pass by pass, pair by pair."""
    network = load_model("sface")
    with torch.no_grad():
        x = torch.from_numpy(crop[None].transpose(0, 3, 1, 2) / 255).float()
        features = network.bn(network.feature_maps(x)[-1]).flatten().double().numpy()
    fc, norm = network.fc, network.embedding_bn
    masks = draw_masks(passes, len(features), dropout=dropout, seed=seed).numpy()
    units = []
    for mask in masks:
        raw = fc.weight.double().numpy() @ (features * mask) + fc.bias.double().numpy()
        scale = norm.weight.double().numpy() / np.sqrt(norm.running_var.double().numpy() + norm.eps)
        embedding = (raw - norm.running_mean.numpy()) * scale + norm.bias.numpy()
        units.append(embedding / np.linalg.norm(embedding))
    distances = [math.dist(units[i], units[j]) for i in range(passes) for j in range(i + 1, passes)]
    return 2 / (1 + math.exp(np.mean(distances)))


@pytest.mark.parametrize(("passes", "dropout", "seed"), [(6, 0.5, 0), (3, 0.2, 7)])
def test_equals_the_definition(crop: Pixels, passes: int, dropout: float, seed: int) -> None:
    scorer = SERFIQ(passes=passes, dropout=dropout, seed=seed, device="cpu")
    (score,) = scorer.score([crop])
    assert score.quality == pytest.approx(by_hand(crop, passes, dropout, seed), abs=1e-5)
    with torch.no_grad():
        x = torch.from_numpy(crop[None].transpose(0, 3, 1, 2) / 255).float()
        norm = load_model("sface")(x).norm().item()
    assert score.embedding_norm == pytest.approx(norm, rel=1e-5)
    assert score.similarities is score.symmetry is score.quality_error is None


@pytest.mark.parametrize(
    ("rows", "distance"),
    [
        ([[1, 0], [0, 3]], math.sqrt(2)),
        ([[1, 0], [-5, 0]], 2),
        ([[1, 1], [2, 2], [0.5, 0.5]], 0),
        ([[1, 0], [1, 0], [0, 1]], 2 * math.sqrt(2) / 3),
        ([[1, 0], [1, 1e-4]], 1e-4),
    ],
)
def test_known_distances(rows: list[list[float]], distance: float) -> None:
    found = robustness(torch.tensor([rows], dtype=torch.float32)).item()
    assert found == pytest.approx(2 / (1 + math.exp(distance)), abs=2e-7)


def test_masks_leave_out_the_share_asked_for() -> None:
    masks = draw_masks(50, 2000, dropout=0.3, seed=0)
    assert masks.unique().tolist() == [0, pytest.approx(1 / 0.7)]
    # five standard deviations of a mean of 100,000 draws
    assert (masks == 0).float().mean().item() == pytest.approx(0.3, abs=0.0073)
    assert masks.mean().item() == pytest.approx(1, abs=0.011)


def test_fewer_passes_take_the_first_masks() -> None:
    assert torch.equal(
        draw_masks(3, 20, dropout=0.5, seed=1), draw_masks(9, 20, dropout=0.5, seed=1)[:3]
    )
    assert not torch.equal(
        draw_masks(3, 20, dropout=0.5, seed=1), draw_masks(3, 20, dropout=0.5, seed=2)
    )


def test_every_option_changes_the_score(crop: Pixels) -> None:
    qualities = {
        SERFIQ(**options, device="cpu").score([crop])[0].quality
        for options in ({"passes": 10}, {"passes": 9}, {"passes": 10, "seed": 1},
                        {"passes": 10, "dropout": 0.4})
    }  # fmt: skip
    assert len(qualities) == 4


def test_damage_lowers_it(crop: Pixels) -> None:
    names = ("astronaut_blur3", "astronaut_dark", "astronaut_occluded", "grey")
    best, *worse = SERFIQ(device="cpu").score(
        [crop, *(read_rgb(DATA / f"{name}.png") for name in names)]
    )
    assert all(score.quality > 0 for score in worse)
    assert max(score.quality for score in worse) < best.quality < 1


class TwoLinear(nn.Module):
    """Names its layers in another order than it computes them, as a module may."""

    def __init__(self) -> None:
        super().__init__()
        self.end = nn.Linear(4, 2)
        self.start = nn.Linear(3, 4)

    def forward(self, crops: Tensor) -> Tensor:
        ended: Tensor = self.end(self.start(crops.mean(dim=(2, 3))))
        return ended


def test_the_last_layer_is_the_one_computed_last() -> None:
    network = TwoLinear()
    assert last_linear(network, 8) is network.end
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert last_linear(nn.Conv2d(3, 3, 1), 8) is None


def test_a_traced_network_scores_alike() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    qualities = [
        [score.quality for score in SERFIQ(network, passes=5, device="cpu").score(crops)]
        for network in (Toy(), traced(Toy()))
    ]
    assert qualities[0] == qualities[1]
    assert len(set(qualities[0])) == 3


class FixedBatch(nn.Module):
    """Ends in a reshaping to one row, as exported graphs may."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.columns = columns

    def forward(self, crops: Tensor) -> Tensor:
        reshaped: Tensor = self.fc(crops.mean(dim=(2, 3))).reshape(1, self.columns)
        return reshaped


@pytest.mark.parametrize("columns", [2, -1])
def test_layers_for_one_crop_only_are_refused(columns: int) -> None:
    with pytest.raises(SettingsError, match=r"wrapped: .* a fixed number of crops"):
        SERFIQ(Wrapped(FixedBatch(columns)), device="cpu")


def test_a_network_without_a_last_layer_is_refused() -> None:
    with pytest.raises(SettingsError, match="fully connected layer, and wrapped has none"):
        SERFIQ(Wrapped(nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten())), device="cpu")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"passes": 1}, "passes is 1"), ({"dropout": 0.0}, "dropout"), ({"dropout": 1.0}, "dropout")],
)
def test_options_out_of_range(options: dict[str, float], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        SERFIQ(Toy(), **options, device="cpu")  # type: ignore[arg-type]
