"""The attack on networks small enough to do by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from faceqan_toolkit.quality.attack import attack, draw_noise

BOUNDS = (0.0, 1.0)


class Toy(nn.Module):
    """A random network with no weights to load; counts its passes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(6, 3 * 4 * 4, generator=generator)
        self.passes: list[tuple[int, bool]] = []

    def forward(self, crops: Tensor) -> Tensor:
        self.passes.append((len(crops), torch.is_grad_enabled() and crops.requires_grad))
        return torch.tanh(crops.flatten(1) @ self.weight.T)


def run(network: Toy, crops: Tensor, noise: Tensor, *, eps=0.01, steps=4, bounds=BOUNDS) -> Tensor:
    with torch.no_grad():
        references = network(crops)
    network.passes.clear()
    return attack(network, crops, references, noise, eps=eps, steps=steps, bounds=bounds)


def by_the_paper(network: Toy, crop: Tensor, noise: Tensor, eps: float, steps: int) -> np.ndarray:
    """The algorithm again, one copy at a time, gradients by finite differences in float64."""
    weight = network.weight.double().numpy()

    def embed(x):
        return np.tanh(weight @ x.ravel())

    def cosine(x):
        e, r = embed(x), embed(crop.double().numpy())
        return e @ r / np.linalg.norm(e) / np.linalg.norm(r)

    columns = []
    for one in noise.double().numpy():
        z, column = np.clip(crop.double().numpy() + one, *BOUNDS), []
        for _ in range(steps):
            column.append(cosine(z))
            gradient = np.zeros_like(z)
            for index in np.ndindex(z.shape):
                up, down = z.copy(), z.copy()
                up[index] += 1e-6
                down[index] -= 1e-6
                gradient[index] = (1 - cosine(up)) - (1 - cosine(down))
            z = np.clip(z + eps * np.sign(gradient), *BOUNDS)
        columns.append(column)
    return np.array(columns).T


def test_equals_the_paper_done_by_hand() -> None:
    network, noise = Toy(), draw_noise(3, 4, eps=0.01, seed=5)
    crops = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    found = run(network, crops, noise)
    assert found.shape == (2, 4, 3)
    for face in range(2):
        expected = by_the_paper(network, crops[face], noise, 0.01, 4)
        np.testing.assert_allclose(found[face].numpy(), expected, atol=1e-5)


def test_a_strength_is_another_eps_for_each_crop() -> None:
    network, noise = Toy(), draw_noise(3, 4, eps=0.01, seed=5)
    crops = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    references = network(crops)
    strength = torch.tensor([0.5, 2.0])
    found = attack(
        network, crops, references, noise, eps=0.01, steps=4, bounds=BOUNDS, strength=strength
    )
    for face, factor in enumerate([0.5, 2.0]):
        expected = by_the_paper(network, crops[face], noise * factor, 0.01 * factor, 4)
        np.testing.assert_allclose(found[face].numpy(), expected, atol=1e-5)


def test_no_wasted_passes() -> None:
    network, noise = Toy(), draw_noise(3, 4, eps=0.01, seed=5)
    run(network, torch.rand(2, 3, 4, 4), noise, steps=4)
    # l forward passes, all but the last with a gradient
    assert network.passes == [(6, True)] * 3 + [(6, False)]


def test_another_step_takes_the_place_of_autograd() -> None:
    seen = []

    def step(attacked: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((attacked, targets))
        return torch.full((6,), len(seen) / 10), torch.full_like(attacked, -7)

    network, crops, noise = Toy(), torch.rand(2, 3, 4, 4), draw_noise(3, 4, eps=0.01, seed=5)
    references = network(crops)
    found = attack(network, crops, references, noise, eps=0.25, steps=3, bounds=BOUNDS, step=step)
    assert [row.tolist() for row in found[0, :2]] == [pytest.approx([n / 10] * 3) for n in (1, 2)]
    # against the gradient's sign, by eps, within bounds
    assert torch.equal(seen[1][0], (seen[0][0] + 0.25).clamp(*BOUNDS))
    np.testing.assert_allclose(seen[0][1][3:].norm(dim=1), 1, atol=1e-6)
    # the last row, after which there is no step, is the embedder's own
    last = network((seen[1][0] + 0.25).clamp(*BOUNDS))
    expected = torch.cosine_similarity(last, references.repeat_interleave(3, dim=0))
    np.testing.assert_allclose(found[:, 2].flatten(), expected, atol=1e-6)


def test_similarity_falls_with_the_steps() -> None:
    found = run(Toy(), torch.rand(2, 3, 4, 4), draw_noise(3, 4, eps=0.01, seed=5))
    assert (found.diff(dim=1) < 0).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-4, 0.5), st.integers(1, 4), st.integers(0, 1000))
def test_copies_stay_near_and_within_bounds(eps: float, steps: int, seed: int) -> None:
    seen: list[Tensor] = []
    network = Toy(seed)

    def spy(crops: Tensor) -> Tensor:
        seen.append(crops.detach().clone())
        return network(crops)

    crops = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    found = attack(
        spy, crops, network(crops), draw_noise(2, 4, eps=eps, seed=seed), eps=eps, steps=steps,
        bounds=BOUNDS,
    )  # fmt: skip
    assert (found.abs() <= 1 + 1e-5).all()
    for step, copies in enumerate(seen):
        assert copies.min() >= 0
        assert copies.max() <= 1
        assert (copies - crops).abs().max() <= eps * (step + 1) + 1e-6


def test_published_bounds_reach_below_zero() -> None:
    lows = []

    def spy(crops: Tensor) -> Tensor:
        lows.append(float(crops.min().detach()))
        return crops.flatten(1)

    black = torch.zeros(1, 3, 4, 4)
    noise = draw_noise(2, 4, eps=0.01, seed=0)
    for low in (-1.0, 0.0):
        attack(spy, black, torch.ones(1, 48), noise, eps=0.01, steps=1, bounds=(low, 1.0))
    assert lows[0] < 0
    assert lows[1] == 0


def test_noise_is_the_published_recipe() -> None:
    torch.manual_seed(7)
    expected = torch.stack([torch.FloatTensor(3, 112, 112).uniform_(-0.01, 0.01) for _ in range(3)])
    assert torch.equal(draw_noise(3, 112, eps=0.01, seed=7), expected)


def test_noise_leaves_torchs_own_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    draw_noise(2, 8, eps=0.1, seed=9)
    assert torch.equal(torch.rand(1), before)


@pytest.mark.parametrize("copies", [1, 4])
def test_more_copies_begin_with_the_same_noise(copies: int) -> None:
    more = draw_noise(copies + 2, 8, eps=0.1, seed=9)
    assert torch.equal(more[:copies], draw_noise(copies, 8, eps=0.1, seed=9))
