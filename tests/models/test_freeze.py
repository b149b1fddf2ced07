"""A frozen network against the one it was made from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faceqan_toolkit.models.architectures import Architecture, build, official
from faceqan_toolkit.models.freeze import FrozenPReLU, freeze
from faceqan_toolkit.models.load import load_model
from tests.models.layouts import filled


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (3, 5), (1, 5, 7)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("number", [1, 5])
def test_prelu_and_its_gradient(shape, layout, number: int) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = nn.PReLU(number)
    with torch.no_grad():
        reference.weight.copy_(torch.randn(number, generator=generator))
    x = torch.randn(shape, generator=generator)
    x.view(-1)[0] = 0.0
    if len(shape) == 4:
        x = x.contiguous(memory_format=layout)
    weights = torch.randn(shape, generator=generator)

    def both(module: nn.Module) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        result = module(leaf)
        (gradient,) = torch.autograd.grad((result * weights).sum(), leaf)
        return result, gradient

    for found, expected in zip(both(FrozenPReLU(reference.weight)), both(reference), strict=True):
        torch.testing.assert_close(found, expected)


def test_prelu_in_double_by_finite_differences() -> None:
    x = torch.randn(2, 3, 4, dtype=torch.double, requires_grad=True)
    module = FrozenPReLU(torch.tensor([0.1, -0.5, 1.5], dtype=torch.double))
    assert torch.autograd.gradcheck(module, (x,))


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class Residual(nn.Module):
    """What iresnet is made of: norms before and after convolutions, a head that flattens."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(8), nn.PReLU(8)
        self.bn3, self.dropout = nn.BatchNorm2d(8, eps=2e-5), nn.Dropout(0.4)
        self.fc, self.features = nn.Linear(8 * 16 * 16, 5), nn.BatchNorm1d(5)
        generator = torch.Generator().manual_seed(0)
        for module in self.modules():
            if isinstance(module, NORMS):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)

    def forward(self, crops: Tensor) -> Tensor:
        x = self.bn2(self.conv1(self.bn1(crops)))
        x = self.bn3(self.prelu(x) + x)
        return self.features(self.fc(torch.flatten(self.dropout(x), 1)))


def both(module: nn.Module, crops: Tensor) -> tuple[Tensor, Tensor]:
    """Return embeddings and the input gradient of some of them."""
    leaf = crops.clone().requires_grad_()
    embeddings = module(leaf)
    (gradient,) = torch.autograd.grad(embeddings[:, :4].sum(), leaf)
    return embeddings, gradient


def dead_channels() -> nn.Module:
    """Return such a network whose norm before a padded convolution scales channels to nothing."""
    network = Residual().eval()
    with torch.no_grad():
        network.bn1.weight.copy_(torch.tensor([0.0, 1e-30, 1.0]))
        network.bn1.bias.fill_(0.5)
    return network


FAMILIES = [
    official("magface", 18, embedding_size=16),
    official("ir", 18, embedding_size=16),
    official("adaface", 18, embedding_size=16, squeeze_excitation=True),
    official("facenet"),
]


@pytest.mark.parametrize(
    "network",
    [
        Residual().eval(),
        dead_channels(),
        load_model("sface"),
        *(pytest.param(architecture, id=architecture.name) for architecture in FAMILIES),
    ],
)
def test_frozen_networks_do_the_same(network: nn.Module | Architecture) -> None:
    if isinstance(network, Architecture):
        network = filled(build(network))
    size = getattr(network, "input_size", 16)
    frozen = freeze(network)
    assert not any(isinstance(module, NORMS) for module in frozen.modules())
    assert not any(isinstance(module, nn.PReLU) for module in frozen.modules())
    crops = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    (found, gradient), (expected, wanted) = both(frozen, crops), both(network, crops)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    # a unit whose input is zero up to rounding may take the other slope
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), wanted.flatten(), 0) > 0.9999


def test_the_original_stays_as_it_was() -> None:
    network = load_model("sface")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    freeze(network)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_network_that_cannot_be_traced_still_works() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prelu = nn.PReLU()

        def forward(self, crops: Tensor) -> Tensor:
            return self.prelu(crops if crops.sum() > 0 else -crops)

    x = torch.ones(1, 2, 3, 3)
    assert torch.equal(freeze(Branching())(x), x)
