"""What coarser arithmetic would do to the scores, emulated on the CPU.

    python benchmarks/precision.py CROPS [--crops 64]

CROPS is a folder of aligned 112x112 faces; each is scored clean and damaged, as in
`agreement.py`. A GPU that computes in TF32 rounds the inputs of convolutions and matrix products
to 10 bits of mantissa, forward and backward, and adds up in float32; in float16 (10 bits) and
bfloat16 (7) the results are rounded, too. Here the same numbers are rounded and float32 does the
rest. Float16's gradients are multiplied by 1024 on their way, as is usual, so that they do not
vanish. For each: Spearman's rank correlation with float32, and the difference in score. The last
line is float32 with another seed: what there is to reach.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agreement import damaged
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from faceqan_toolkit.photos.decode import decode_bytes
from faceqan_toolkit.quality.attack import autograd_step
from faceqan_toolkit.quality.faceqan import FaceQAN

GRADIENT_SCALE = 1024.0
Round = Callable[[Tensor], Tensor]


def tf32(x: Tensor) -> Tensor:
    """Round to the nearest number of 10 bits of mantissa (Veltkamp's splitting)."""
    large = x * (2**13 + 1)
    return large.sub_(large - x)


def tf32_cut(x: Tensor) -> Tensor:
    """Cut the mantissa off after 10 bits, as tensor cores do with numbers nobody has rounded."""
    return (x.view(torch.int32) & ~0x1FFF).view(torch.float32)


def float16(x: Tensor) -> Tensor:
    return x.half().float()


def bfloat16(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def exactly(x: Tensor) -> Tensor:
    return x


ARITHMETICS: dict[str, tuple[Round, Round]] = {
    "tf32": (tf32, exactly),
    "tf32, cut off": (tf32_cut, exactly),
    "float16": (float16, float16),
    "bfloat16": (bfloat16, bfloat16),
}
"""What happens to the inputs of products, and to their results."""


class _Rounded(torch.autograd.Function):
    """A linear function with rounded inputs and results, and so its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: RoundedLayer) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        return layer.after(layer.product(layer.before(x)))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        return layer.after(layer.transposed(ctx.shape, layer.before(gradient))), None


class RoundedLayer(nn.Module):
    """A convolution or linear layer with constant weights, in another arithmetic."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, before: Round, after: Round) -> None:
        super().__init__()
        self.layer, self.before, self.after = layer, before, after
        layer.weight.data = before(layer.weight.data)

    def product(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def transposed(self, shape: torch.Size, gradient: Tensor) -> Tensor:
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return gradient @ layer.weight
        return conv2d_input(
            shape, layer.weight, gradient, layer.stride, layer.padding, layer.dilation, layer.groups
        )

    def forward(self, x: Tensor) -> Tensor:
        return _Rounded.apply(x, self)


def replace_layers(module: nn.Module, before: Round, after: Round) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d | nn.Linear):
            setattr(module, name, RoundedLayer(child, before, after))
        else:
            replace_layers(child, before, after)


def scorer_in(arithmetic: str, preset: dict[str, int]) -> FaceQAN:
    scorer = FaceQAN("sface", device="cpu", backend="torch", **preset)
    replace_layers(scorer._network, *ARITHMETICS[arithmetic])
    step = autograd_step(lambda crops: scorer._network(crops))

    def scaled(attacked: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        similarity, gradient = step(attacked, targets * GRADIENT_SCALE)
        return similarity / GRADIENT_SCALE, gradient

    scorer._step = scaled if arithmetic == "float16" else step
    return scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crops", type=int, default=64)
    parser.add_argument("--copies", type=int, default=10)
    options = parser.parse_args()
    preset = {"copies": options.copies}
    files = sorted(options.folder.rglob("*.png"))
    files = files[:: max(1, len(files) // options.crops)][: options.crops]
    clean = [decode_bytes(file.read_bytes(), max_pixels=10**6) for file in files]
    crops = clean + [damaged(crop, number % 5) for number, crop in enumerate(clean)]

    def qualities(scorer: FaceQAN) -> np.ndarray:
        return np.array([score.quality for score in scorer.score(crops)])

    print(f"{len(clean)} clean crops and as many damaged ones, {options.copies} copies", flush=True)
    reference = qualities(FaceQAN("sface", device="cpu", backend="torch", **preset))

    def report(name: str, values: np.ndarray) -> None:
        difference = values - reference
        part = [spearmanr(values[s], reference[s])[0] for s in (slice(len(clean)), slice(None))]
        bias, largest = np.nanmean(difference), np.nanmax(np.abs(difference))
        print(
            f"{name:22} Spearman clean {part[0]:.4f}, mixed {part[1]:.4f}; "
            f"bias {bias:+.4f}, largest difference {largest:.3f}",
            flush=True,
        )

    for arithmetic in ARITHMETICS:
        report(arithmetic, qualities(scorer_in(arithmetic, preset)))
    other = FaceQAN("sface", device="cpu", backend="torch", seed=1, **preset)
    report("float32, other seed", qualities(other))


if __name__ == "__main__":
    main()
