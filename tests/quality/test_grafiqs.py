"""GraFIQs against differences of its definition, and gradients known by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.architectures import build, official
from faceqan_toolkit.models.base import Embedder
from faceqan_toolkit.models.freeze import freeze
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.quality.grafiqs import GraFIQs, discrepancy, gradient_magnitudes
from faceqan_toolkit.types import Pixels
from tests.conftest import DATA, read_rgb
from tests.models.layouts import filled
from tests.toys import Toy, Wrapped, traced


def random_crops(number: int, size: int = 8) -> NDArray[np.uint8]:
    shape = (number, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def as_tensor(crops: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(crops.transpose(0, 3, 1, 2) / 255)


def apart(x: Tensor, norm: nn.BatchNorm2d) -> float:
    """The discrepancy of one crop at one batch norm, in numpy."""
    values = x.double().numpy()[0].reshape(norm.num_features, -1)
    means, variances = values.mean(axis=1), values.var(axis=1)
    kept_mean, kept_variance = norm.running_mean.numpy(), norm.running_var.numpy()
    return float(np.mean((means - kept_mean) ** 2) + np.mean((variances - kept_variance) ** 2))


def test_discrepancy_is_that_of_each_crop() -> None:
    norm = Toy().bn
    x = as_tensor(random_crops(3)).float()
    expected = [apart(x[n : n + 1], norm) for n in range(3)]
    assert discrepancy(x, norm).tolist() == pytest.approx(expected, rel=1e-5)


def test_gradient_by_hand() -> None:
    """One batch norm on the crop itself: the gradient of a mean and a variance is school maths."""
    network = Wrapped(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()))
    norm = network.network[0]
    norm.running_mean.copy_(torch.tensor([0.1, 0.4, 0.7]))
    norm.running_var.copy_(torch.tensor([0.2, 0.05, 0.01]))
    crop = random_crops(1)
    x = crop[0].reshape(64, 3) / 255
    by_mean = 2 * (x.mean(axis=0) - [0.1, 0.4, 0.7]) / 3 / 64
    by_variance = 2 * (x.var(axis=0) - [0.2, 0.05, 0.01]) / 3 * 2 * (x - x.mean(axis=0)) / 64
    (score,) = GraFIQs(network, device="cpu").score(crop)
    assert score.quality == pytest.approx(-np.abs(by_mean + by_variance).sum(), rel=1e-5)


def total(network: Toy, crop: Tensor, maps: Tensor | None = None) -> float:
    """The toy's discrepancy, layer by layer; given the first stage's output, from there on."""
    found = 0.0
    if maps is None:
        found += apart(crop, network.bn)
        conv, norm, prelu = network.first
        maps = conv(network.bn(crop))
        found += apart(maps, norm)
        maps = prelu(norm(maps))
    conv, norm, prelu = network.second
    maps = conv(maps)
    found += apart(maps, norm)
    found += apart(prelu(norm(maps)), network.last_bn)
    return found / 4


@pytest.mark.parametrize("at", ["image", "block1"])
def test_equals_differences_of_the_definition(at: str) -> None:
    network = Toy().double()
    crop = as_tensor(random_crops(1))
    begin = crop if at == "image" else network.first(network.bn(crop))
    step, differences = 1e-5, []
    for index in range(begin.numel()):
        sides = []
        for side in (step, -step):
            moved = begin.clone(memory_format=torch.contiguous_format)
            moved.view(-1)[index] += side
            sides.append(
                total(network, moved) if at == "image" else total(network, crop, maps=moved)
            )
        differences.append((sides[0] - sides[1]) / (2 * step))
    stage = None if at == "image" else network.first
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    magnitude, embedding = gradient_magnitudes(network, norms, crop, stage)
    assert magnitude.item() == pytest.approx(np.abs(differences).sum(), rel=1e-6)
    assert torch.equal(embedding, network(crop))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    scores = GraFIQs(Toy(), at=at, device="cpu").score(random_crops(1))
    assert scores[0].quality == pytest.approx(-magnitude.item(), rel=1e-4)


def test_equals_the_plain_network_taken_apart() -> None:
    """IResNet at its second stage: weights unfrozen, its parts called one after the other."""
    embedder = build(official("iresnet", 18, embedding_size=16))
    filled(embedder.backbone)
    crop = random_crops(1, 112)
    (score,) = GraFIQs(embedder, device="cpu").score(crop)

    network = embedder.backbone.requires_grad_(True)
    inputs: list[tuple[nn.BatchNorm2d, Tensor]] = []
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_hook(lambda module, given, _out: inputs.append((module, given[0])))
    x = network.prelu(network.bn1(network.conv1(as_tensor(crop).float() * 2 - 1)))
    stage = network.layer2(network.layer1(x))
    stage.retain_grad()
    network.bn2(network.layer4(network.layer3(stage)))
    loss = sum(
        torch.mean((given.mean(dim=(0, 2, 3)) - norm.running_mean) ** 2)
        + torch.mean((given.var(dim=(0, 2, 3), unbiased=False) - norm.running_var) ** 2)
        for norm, given in inputs
    ) / len(norms)
    loss.backward()
    assert len(inputs) == len(norms)
    assert score.quality == pytest.approx(-stage.grad.abs().sum().item(), rel=1e-3)


def test_strong_blur_and_nothing_lower_it(crop: Pixels) -> None:
    """Not so every damage: with the built-in model a little blur or darkness may raise it."""
    blurred = np.asarray(cv2.GaussianBlur(crop, (0, 0), 6), dtype=np.uint8)
    damaged = [blurred, read_rgb(DATA / "grey.png")]
    best, *worse = GraFIQs(device="cpu").score([crop, *damaged])
    assert max(score.quality for score in worse) < best.quality < 0
    assert best.similarities is best.symmetry is best.quality_error is None


def test_where_the_gradient_is_taken_matters(crop: Pixels) -> None:
    places = ("image", "block1", "block2", "block3", "block4")
    found = {at: GraFIQs(at=at, device="cpu").score([crop])[0].quality for at in places}
    assert len(set(found.values())) == 5
    default = GraFIQs(device="cpu")
    assert default.at == "block2"
    assert default.score([crop])[0].quality == found["block2"]


def test_a_traced_network_has_no_known_stages() -> None:
    scorer = GraFIQs(traced(Toy()), device="cpu")
    assert scorer.at == "image"
    crops = random_crops(3)
    plain = GraFIQs(Toy(), at="image", device="cpu").score(crops)
    assert scorer.score(crops) == plain
    with pytest.raises(SettingsError, match=r"at is block1; with wrapped it must be one of image$"):
        GraFIQs(traced(Toy()), at="block1", device="cpu")


def test_networks_without_batch_norms_are_refused() -> None:
    folded = freeze(Toy())
    assert not any(isinstance(one, nn.BatchNorm2d) for one in folded.modules())
    with pytest.raises(SettingsError, match="batch norms, and wrapped has none"):
        GraFIQs(Wrapped(folded), device="cpu")


@pytest.mark.parametrize(
    ("embedder", "sizes"),
    [
        (lambda: load_model("sface"), [56, 28, 14, 7]),
        (lambda: build(official("iresnet", 34, embedding_size=8)), [56, 28, 14, 7]),
        (lambda: build(official("ir", 34, embedding_size=8)), [56, 28, 14, 7]),
        (lambda: build(official("facenet")), [17, 17, 8, 3]),
    ],
    ids=["sface", "iresnet", "ir", "facenet"],
)
def test_stages_end_where_the_picture_shrinks(embedder, sizes: list[int]) -> None:
    network: Embedder = embedder().requires_grad_(False)
    maps: list[Tensor] = []
    for stage in network.stages():
        stage.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    with torch.no_grad():
        network(torch.zeros(1, 3, network.input_size, network.input_size))
    assert [one.shape[-1] for one in maps] == sizes
    scorers = [GraFIQs(network, at=f"block{number}", device="cpu") for number in (1, 4)]
    crop = random_crops(1, network.input_size)
    assert all(scorer.score(crop)[0].quality < 0 for scorer in scorers)
