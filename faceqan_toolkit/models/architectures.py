"""Which network a set of named tensors belongs to, told by names and shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError, WrongArchitecture
from faceqan_toolkit.models.base import BackboneEmbedder
from faceqan_toolkit.models.ir import BLOCKS as IR_BLOCKS
from faceqan_toolkit.models.ir import IR
from faceqan_toolkit.models.iresnet import BLOCKS as IRESNET_BLOCKS
from faceqan_toolkit.models.iresnet import IResNet
from faceqan_toolkit.models.preprocessing import Preprocessing
from faceqan_toolkit.settings import ModelOptions

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Family:
    """Networks that share their parameters' names and were trained alike.

    Attributes:
        title: what people call them.
        anchor: a parameter that all networks of this layout have and no other network has.
        parts: the outermost modules; what else a checkpoint holds is not the network.
        preprocessing: the official one.
        eps: of batch norms, the official one.
        assumed: which of these no checkpoint tells.
    """

    title: str
    anchor: str
    parts: frozenset[str]
    preprocessing: Preprocessing
    eps: float
    assumed: tuple[str, ...] = ("channels", "mean", "std", "eps")


_IRESNET = (
    "layer1.0.prelu.weight",
    frozenset(
        {"conv1", "bn1", "prelu", "layer1", "layer2", "layer3", "layer4", "bn2", "fc", "features"}
    ),
)
_IR = ("body.0.res_layer.1.weight", frozenset({"input_layer", "body", "output_layer"}))
_FACENET = (
    "conv2d_1a.conv.weight",
    frozenset(
        {
            "conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "conv2d_4b",
            "repeat_1", "mixed_6a", "repeat_2", "mixed_7a", "repeat_3", "block8",
            "last_linear", "last_bn",
        }
    ),
)  # fmt: skip

FAMILIES: Mapping[str, Family] = {
    "iresnet": Family("IResNet (ArcFace, CosFace, ElasticFace)", *_IRESNET, Preprocessing(), 1e-5),
    "magface": Family("MagFace IResNet", *_IRESNET, Preprocessing("BGR", 0.0, 255.0), 2e-5),
    "ir": Family("IR (CurricularFace, InsightFace_Pytorch)", *_IR, Preprocessing(), 1e-5),
    "adaface": Family("AdaFace IR", *_IR, Preprocessing("BGR"), 1e-5),
    "facenet": Family(
        "FaceNet Inception-ResNet v1",
        *_FACENET,
        Preprocessing("RGB", 127.5, 128.0, input_size=160, template="box"),
        1e-3,
        ("channels", "mean", "std"),
    ),
}


@dataclass(frozen=True)
class Architecture:
    """All it takes to build a network, its weights apart.

    Attributes:
        family: one of `FAMILIES`.
        depth: as the family counts it, such as 50 or 100; 0 where there is only one.
        embedding_size: D.
        squeeze_excitation: IR-SE, of the families "ir" and "adaface".
        output_affine: the last batch norm has weights, as in InsightFace_Pytorch's "ir".
        eps: of every batch norm.
        preprocessing: what the network was trained to see.
        assumed: what of eps and preprocessing is the family's because no checkpoint tells it.
    """

    family: str
    depth: int
    embedding_size: int
    squeeze_excitation: bool
    output_affine: bool
    eps: float
    preprocessing: Preprocessing
    assumed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A short name, such as "iresnet100" or "ir-se50"."""
        return f"{self.family}{'-se' if self.squeeze_excitation else ''}{self.depth or ''}"

    @property
    def title(self) -> str:
        """One line for people."""
        parts = [FAMILIES[self.family].title]
        if self.depth:
            parts.append(f"depth {self.depth}")
        if self.squeeze_excitation:
            parts.append("squeeze-and-excitation")
        return ", ".join([*parts, f"{self.embedding_size}-d"])

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What no checkpoint tells and the family's default stands for, in words."""
        told = {**self.preprocessing.in_words(), "eps": f"batch norm eps {self.eps:g}"}
        return tuple(told[name] for name in self.assumed)

    @property
    def layout(self) -> tuple[object, ...]:
        """What decides the tensors' names and shapes; MagFace's are those of any IResNet."""
        family = "iresnet" if self.family == "magface" else self.family
        se, affine = self.squeeze_excitation, self.output_affine
        return family, self.depth, self.embedding_size, se, affine


def official(
    family: str, depth: int = 0, *, embedding_size: int = 512, squeeze_excitation: bool = False,
    output_affine: bool = False,
) -> Architecture:  # fmt: skip
    """Return an architecture with its family's own eps and preprocessing."""
    own = FAMILIES[family]
    return Architecture(
        family, depth, embedding_size, squeeze_excitation, output_affine,
        own.eps, own.preprocessing, own.assumed,
    )  # fmt: skip


def adjust(architecture: Architecture, options: ModelOptions) -> Architecture:
    """Return an architecture with what options say in place of what was assumed."""
    if options.eps is not None and "eps" not in architecture.assumed:
        raise SettingsError(f"norm-eps is fixed for {architecture.title}")
    return replace(
        architecture,
        eps=options.eps or architecture.eps,
        preprocessing=architecture.preprocessing.adjusted(options),
        assumed=tuple(name for name in architecture.assumed if getattr(options, name) is None),
    )


def identify(state: State, prefix: str = "") -> Architecture:
    """Return the architecture that tensors belong to.

    Args:
        state: the network's tensors under their own names.
        prefix: what stood before those names in the checkpoint. It tells MagFace from other
            IResNets, for MagFace's official code calls the whole network `features`.

    Raises:
        WrongArchitecture: no family has such tensors, or the family has no such depth.
    """
    if FAMILIES["iresnet"].anchor in state:
        blocks = tuple(_children(state, f"layer{stage}") for stage in (1, 2, 3, 4))
        depth = _depth(blocks, IRESNET_BLOCKS, "IResNet")
        family = "magface" if "features" in prefix.split(".") else "iresnet"
        return official(family, depth, embedding_size=_rows(state, "fc.weight"))
    if FAMILIES["ir"].anchor in state:
        total = {depth: (sum(blocks),) for depth, blocks in IR_BLOCKS.items()}
        return official(
            "adaface" if "body.0.res_layer.2.running_mean" in state else "ir",
            _depth((_children(state, "body"),), total, "IR"),
            embedding_size=_rows(state, "output_layer.3.weight"),
            squeeze_excitation=any(name.endswith(".fc1.weight") for name in state),
            output_affine="output_layer.4.weight" in state,
        )
    if FAMILIES["facenet"].anchor in state:
        return official("facenet")
    known = "; ".join(family.title for family in FAMILIES.values())
    parts = ", ".join(sorted({name.split(".")[0] for name in state})[:5])
    raise WrongArchitecture(f"no known network has tensors named {parts}, ...; known are {known}")


def build_backbone(architecture: Architecture, device: str = "cpu") -> nn.Module:
    """Return the network without its preprocessing, weights random, in evaluation mode.

    On the device "meta" it has shapes but no weights, and costs no time.
    """
    make: Callable[[], nn.Module]
    if architecture.family in ("iresnet", "magface"):
        make = partial(IResNet, architecture.depth, architecture.embedding_size, architecture.eps)
    elif architecture.family in ("ir", "adaface"):
        make = partial(
            IR,
            architecture.depth,
            architecture.embedding_size,
            inner_norm=architecture.family == "adaface",
            squeeze_excitation=architecture.squeeze_excitation,
            output_affine=architecture.output_affine,
            eps=architecture.eps,
        )
    else:
        from faceqan_toolkit.models.inception_resnet import InceptionResnet

        make = InceptionResnet
    with torch.device(device):
        return make().eval()


def build(architecture: Architecture) -> BackboneEmbedder:
    """Return the model, weights random, in evaluation mode."""
    embedder = BackboneEmbedder(build_backbone(architecture), architecture.preprocessing)
    embedder.name, embedder.family = architecture.name, architecture.family
    return embedder.eval()


def _children(state: State, part: str) -> int:
    """Return how many numbered modules a part has, going by the highest number."""
    names = (name.removeprefix(f"{part}.") for name in state if name.startswith(f"{part}."))
    numbers = [int(first) for name in names if (first := name.split(".")[0]).isdecimal()]
    return max(numbers, default=-1) + 1


def _depth(blocks: tuple[int, ...], known: Mapping[int, tuple[int, ...]], title: str) -> int:
    for depth, expected in known.items():
        if blocks == expected:
            return depth
    found = ", ".join(map(str, blocks))
    listed = "; ".join(f"{depth} has {', '.join(map(str, b))}" for depth, b in known.items())
    raise WrongArchitecture(f"looks like an {title} of {found} blocks; known are: {listed}")


def _rows(state: State, name: str) -> int:
    """Return the embedding size a last linear layer gives; 512 if it is not there to tell."""
    weight = state.get(name)
    return weight.shape[0] if weight is not None and weight.ndim == 2 and len(weight) else 512
