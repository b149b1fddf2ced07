"""Copies of networks that are faster for attacks: same embeddings and input gradients."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

Network = TypeVar("Network", bound=nn.Module)
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def freeze(network: nn.Module) -> nn.Module:
    """Return a fast copy of a network that only needs gradients with respect to its input.

    Batch norms are folded into neighbouring layers; one before a padded convolution becomes an
    addition, which costs nothing in the backward pass. PReLU's backward skips the gradient of its
    weight (44 % of the time of an attack on SFace). Weights are channels_last. A network that
    torch.fx cannot trace keeps its layers.
    """
    try:
        # double precision: folded weights are rounded once
        copied = deepcopy(network).eval().requires_grad_(False).double()
        _give_weights(copied)
        traced = fuse(copied, inplace=True)
    except Exception:  # noqa: BLE001 - tracing runs the network's code with proxies
        frozen = deepcopy(network).eval()
    else:
        assert isinstance(traced, fx.GraphModule)
        _fold_before_linear(traced)
        _fold_before_padding(traced)
        frozen = traced.float()
    return _without_weight_gradients(frozen)


def frozen_copy(network: Network) -> Network:
    """Return a copy as `freeze` does, but with all layers kept: no batch norm is folded."""
    return _without_weight_gradients(deepcopy(network).eval())


def _without_weight_gradients(network: Network) -> Network:
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.PReLU) and name:
            network.set_submodule(name, FrozenPReLU(module.weight))
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def _give_weights(network: nn.Module) -> None:
    """Give batch norms without weights identity weights, which `fuse` needs."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and not norm.affine:
            assert norm.running_mean is not None
            norm.weight = nn.Parameter(torch.ones_like(norm.running_mean), requires_grad=False)
            norm.bias = nn.Parameter(torch.zeros_like(norm.running_mean), requires_grad=False)
            norm.affine = True


def _fold_before_linear(traced: fx.GraphModule) -> None:
    """Fold a batch norm over feature maps into the linear layer behind the flattening."""
    for source, norm, linear in _norms_before(traced, nn.Linear):
        scale, shift = _affine(norm)
        by_channel = linear.weight.view(linear.out_features, norm.num_features, -1)
        bias = (by_channel * shift[:, None]).sum(dim=(1, 2))
        linear.bias = nn.Parameter(bias if linear.bias is None else linear.bias + bias)
        linear.weight = nn.Parameter((by_channel * scale[:, None]).flatten(1))
        source.replace_all_uses_with(source.all_input_nodes[0])
        traced.graph.erase_node(source)
    traced.delete_all_unused_submodules()
    traced.recompile()


def _fold_before_padding(traced: fx.GraphModule) -> None:
    """Fold the scaling of a batch norm into the padded convolution behind it; keep the shift.

    scale * x + shift = scale * (x + shift / scale). The convolution can scale, because its zero
    padding stays zero. It cannot shift, because the padding would have to be shifted too.
    """
    for source, norm, conv in _norms_before(traced, nn.Conv2d):
        if conv.groups == 1:
            scale, shift = _affine(norm)
            # avoid dividing by a zero scale; the channel's shift must survive
            least = (1e-7 * scale.abs().max()).clamp_min(1e-20)
            scale = torch.where(scale.abs() < least, least, scale)
            conv.weight = nn.Parameter(conv.weight * scale[:, None, None])
            traced.set_submodule(str(source.target), Shift(shift / scale))
    traced.recompile()


def _norms_before(
    traced: fx.GraphModule, kind: type[Layer]
) -> Iterator[tuple[fx.Node, nn.BatchNorm2d, Layer]]:
    """Yield the batch norms whose output only layers of a kind use, with their nodes and layers."""
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        layer = modules.get(str(node.target))
        if node.op != "call_module" or not isinstance(layer, kind):
            continue
        source = node.args[0]
        while kind is nn.Linear and _passes_on(source, modules):
            source = source.args[0]
        norm = modules.get(str(source.target)) if source.op == "call_module" else None
        if isinstance(norm, nn.BatchNorm2d) and len(source.users) == 1:
            yield source, norm, layer


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the scale and shift per channel that a batch norm in evaluation mode applies."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _passes_on(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node only flattens its input and has a single user."""
    if len(node.users) != 1:
        return False
    if node.op == "call_module":
        return isinstance(modules.get(str(node.target)), nn.Flatten | nn.Dropout | nn.Identity)
    return node.target in ("flatten", torch.flatten)


class Shift(nn.Module):
    """Adds a constant to each channel."""

    amount: Tensor

    def __init__(self, amount: Tensor) -> None:
        super().__init__()
        self.register_buffer("amount", amount.detach().view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return x + amount; (N, C, H, W)."""
        return x + self.amount


class FrozenPReLU(nn.Module):
    """PReLU with constant slopes, one per channel or one for all."""

    slopes: Tensor

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.register_buffer("slopes", slopes.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return x where it is positive, slope times x elsewhere; (N, C, ...)."""
        activated: Tensor = _PReLU.apply(x, self.slopes)
        return activated


class _PReLU(torch.autograd.Function):
    """PReLU without a gradient for the slopes, which torch's own backward always computes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slopes = slopes
        return torch.prelu(x, slopes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        # gradient where x > 0, slope * gradient elsewhere, in two passes over one buffer
        passed = torch.ops.aten.threshold_backward(gradient, x, 0)
        slopes = ctx.slopes.view(1, -1, *[1] * (x.ndim - 2))
        return passed.lerp_(gradient, slopes), None
