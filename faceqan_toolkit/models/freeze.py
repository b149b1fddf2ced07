"""A network made ready for attacks: same embeddings, same input gradients, much less work."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

Network = TypeVar("Network", bound=nn.Module)


def freeze(network: nn.Module) -> nn.Module:
    """Return a copy for which only gradients with respect to the input are ever wanted.

    Batch norms are folded into the layers beside them; one before a padded convolution leaves an
    addition behind, which costs the backward pass nothing. PReLU's backward leaves out its
    weight's gradient (44 % of the time of an attack on SFace), and weights are channels_last. A
    network that torch.fx cannot trace keeps its layers.
    """
    try:
        # in double precision, so that folded weights are rounded once
        copied = deepcopy(network).eval().requires_grad_(False).double()
        _give_weights(copied)
        traced = fuse(copied, inplace=True)
    except Exception:  # noqa: BLE001 - tracing runs the network's own code on stand-ins
        frozen = deepcopy(network).eval()
    else:
        assert isinstance(traced, fx.GraphModule)
        _fold_before_linear(traced)
        _fold_before_padding(traced)
        frozen = traced.float()
    return _without_weight_gradients(frozen)


def frozen_copy(network: Network) -> Network:
    """Return a copy as `freeze` does, with every layer where it was: no batch norm is folded."""
    return _without_weight_gradients(deepcopy(network).eval())


def _without_weight_gradients(network: Network) -> Network:
    _replace_prelu(network)
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def _give_weights(network: nn.Module) -> None:
    """Give batch norms without weights those that change nothing: `fuse` asks for them."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and not norm.affine:
            assert norm.running_mean is not None
            norm.weight = nn.Parameter(torch.ones_like(norm.running_mean), requires_grad=False)
            norm.bias = nn.Parameter(torch.zeros_like(norm.running_mean), requires_grad=False)
            norm.affine = True


def _fold_before_linear(traced: fx.GraphModule) -> None:
    """Fold a batch norm over feature maps into the linear layer their flattening goes to."""
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        linear = modules.get(str(node.target))
        if node.op != "call_module" or not isinstance(linear, nn.Linear):
            continue
        source = node.args[0]
        while _passes_on(source, modules):
            source = source.args[0]
        norm = modules.get(str(source.target)) if source.op == "call_module" else None
        if isinstance(norm, nn.BatchNorm2d) and len(source.users) == 1:
            _absorb(linear, norm)
            source.replace_all_uses_with(source.args[0])
            traced.graph.erase_node(source)
    traced.delete_all_unused_submodules()
    traced.recompile()


def _fold_before_padding(traced: fx.GraphModule) -> None:
    """Leave of a batch norm before a padded convolution only what padding does not let fold.

    scale * x + shift = scale * (x + shift / scale), and a convolution can do the scaling: it
    makes zeros of the zeros around the picture. It could not do the addition there.
    """
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        conv = modules.get(str(node.target))
        if node.op != "call_module" or not isinstance(conv, nn.Conv2d) or conv.groups > 1:
            continue
        source = node.args[0]
        norm = modules.get(str(source.target)) if source.op == "call_module" else None
        if isinstance(norm, nn.BatchNorm2d) and len(source.users) == 1:
            scale, shift = _affine(norm)
            # a channel that is scaled to nothing still gives its shift
            least = (1e-7 * scale.abs().max()).clamp_min(1e-20)
            scale = torch.where(scale.abs() < least, least, scale)
            conv.weight = nn.Parameter(conv.weight * scale[:, None, None])
            traced.set_submodule(str(source.target), Shift(shift / scale))
    traced.recompile()


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the scale and the shift of each channel that a batch norm amounts to."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _passes_on(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Tell whether a node only flattens its input, for that single use."""
    if len(node.users) != 1:
        return False
    if node.op == "call_module":
        return isinstance(modules.get(str(node.target)), nn.Flatten | nn.Dropout | nn.Identity)
    return node.target in ("flatten", torch.flatten)


def _absorb(linear: nn.Linear, norm: nn.BatchNorm2d) -> None:
    """Make a linear layer do the work of a batch norm before it, in place."""
    scale, shift = _affine(norm)
    by_channel = linear.weight.view(linear.out_features, norm.num_features, -1)
    bias = (by_channel * shift[:, None]).sum(dim=(1, 2))
    linear.bias = nn.Parameter(bias if linear.bias is None else linear.bias + bias)
    linear.weight = nn.Parameter((by_channel * scale[:, None]).flatten(1))


def _replace_prelu(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.PReLU):
            setattr(module, name, FrozenPReLU(child.weight))
        else:
            _replace_prelu(child)


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
    """PReLU with constant slopes, one a channel, or one for all."""

    slopes: Tensor

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.register_buffer("slopes", slopes.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return x where it is positive, slope times x elsewhere; (N, C, ...)."""
        activated: Tensor = _PReLU.apply(x, self.slopes)
        return activated


class _PReLU(torch.autograd.Function):
    """torch's own backward computes the slopes' gradient as well, wanted or not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slopes = slopes
        return torch.prelu(x, slopes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        # the gradient where x > 0 and zero elsewhere, then moved the slope's way to the gradient:
        # two passes over memory, in a buffer that is wanted anyway
        passed = torch.ops.aten.threshold_backward(gradient, x, 0)
        slopes = ctx.slopes.view(1, -1, *[1] * (x.ndim - 2))
        return passed.lerp_(gradient, slopes), None
