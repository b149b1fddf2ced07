"""Known network architectures, recognised by the names and shapes of a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError, WrongArchitecture
from faceqan_toolkit.models import networks
from faceqan_toolkit.models.base import BackboneEmbedder, Preprocessing
from faceqan_toolkit.models.registry import Entry
from faceqan_toolkit.settings import ModelOptions

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Family:
    """Networks with the same parameter names and the same kind of training.

    Attributes:
        title: common name.
        anchor: a parameter that all networks of this layout have and no other network has.
        parts: names of the outermost modules; other tensors of a checkpoint are ignored.
        preprocessing: official preprocessing.
        eps: official batch-norm epsilon.
        assumed: which of `eps` and the preprocessing's fields no checkpoint tells.
    """

    title: str
    anchor: str
    parts: frozenset[str]
    preprocessing: Preprocessing
    eps: float
    assumed: tuple[str, ...] = ("channels", "mean", "std", "eps")


_IRESNET = "layer1.0.prelu.weight", frozenset((
    "conv1", "bn1", "prelu", "layer1", "layer2", "layer3", "layer4", "bn2", "fc", "features",
))  # fmt: skip
_IR = "body.0.res_layer.1.weight", frozenset(("input_layer", "body", "output_layer"))
_FACENET = "conv2d_1a.conv.weight", frozenset((
    "conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "conv2d_4b", "repeat_1",
    "mixed_6a", "repeat_2", "mixed_7a", "repeat_3", "block8", "last_linear", "last_bn",
))  # fmt: skip

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
    """A complete description of a network without its weights.

    Attributes:
        family: one of `FAMILIES`.
        depth: as the family counts it, such as 50 or 100; 0 if the family has one depth only.
        embedding_size, squeeze_excitation, output_affine, eps: see `networks.IR`.
        preprocessing: what the network was trained with.
        assumed: which of `eps` and the preprocessing's fields are the family's defaults because no
            checkpoint tells them.
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
        """Short name, such as "iresnet100" or "ir-se50"."""
        return f"{self.family}{'-se' if self.squeeze_excitation else ''}{self.depth or ''}"

    @property
    def title(self) -> str:
        """Description, one line."""
        depth = f"depth {self.depth}" if self.depth else ""
        unit = "squeeze-and-excitation" if self.squeeze_excitation else ""
        parts = (FAMILIES[self.family].title, depth, unit, f"{self.embedding_size}-d")
        return ", ".join(filter(None, parts))

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The assumed values in words, such as "channels RGB"."""
        told = {**self.preprocessing.in_words(), "eps": f"batch norm eps {self.eps:g}"}
        return tuple(told[name] for name in self.assumed)

    @property
    def layout(self) -> tuple[object, ...]:
        """What determines the tensors' names and shapes; MagFace's are those of any IResNet."""
        family = "iresnet" if self.family == "magface" else self.family
        se, affine = self.squeeze_excitation, self.output_affine
        return family, self.depth, self.embedding_size, se, affine


@dataclass(frozen=True)
class Loaded:
    """A model from a weights file.

    Attributes:
        embedder: the model, on the CPU, in evaluation mode, float32, without weight gradients.
        embedding_size: D.
        architecture: the recognised architecture; None for an ONNX file.
        assumed: for an ONNX file, the fields of its preprocessing that neither the file nor the
            caller told, and that are guesses.
    """

    embedder: BackboneEmbedder
    embedding_size: int
    architecture: Architecture | None = None
    assumed: tuple[str, ...] = ()


def official(
    family: str, depth: int = 0, *, embedding_size: int = 512, squeeze_excitation: bool = False,
    output_affine: bool = False,
) -> Architecture:  # fmt: skip
    """Return an architecture with its family's official eps and preprocessing."""
    own = FAMILIES[family]
    return Architecture(
        family, depth, embedding_size, squeeze_excitation, output_affine,
        own.eps, own.preprocessing, own.assumed,
    )  # fmt: skip


def architecture_of(entry: Entry) -> Architecture:
    """Return a registered model's architecture."""
    return Architecture(
        entry.family, entry.depth, entry.embedding_size, entry.squeeze_excitation,
        entry.output_affine, entry.eps, preprocessing_of(entry),
    )  # fmt: skip


def preprocessing_of(entry: Entry) -> Preprocessing:
    """Return a registered model's preprocessing."""
    return Preprocessing(
        entry.channels, entry.mean, entry.std, input_size=entry.input_size, template=entry.template
    )


def adjust(architecture: Architecture, options: ModelOptions) -> Architecture:
    """Return an architecture with options in place of the family's defaults.

    Raise SettingsError for an eps if the family's is fixed.
    """
    if options.eps is not None and "eps" not in architecture.assumed:
        raise SettingsError(f"norm-eps is fixed for {architecture.title}")
    return replace(
        architecture,
        eps=options.eps or architecture.eps,
        preprocessing=architecture.preprocessing.adjusted(options),
        assumed=tuple(name for name in architecture.assumed if getattr(options, name) is None),
    )


def identify(state: State, prefix: str = "") -> Architecture:
    """Return the architecture that a network's tensors belong to.

    `prefix` is the text before their names in the checkpoint. It distinguishes MagFace from other
    IResNets: MagFace's official code calls the whole network `features`. Raise WrongArchitecture
    if no family has such tensors, or the family has no such depth.
    """
    if FAMILIES["iresnet"].anchor in state:
        blocks = tuple(_children(state, f"layer{stage}") for stage in (1, 2, 3, 4))
        depth = _depth(blocks, networks.IRESNET_BLOCKS, "IResNet")
        family = "magface" if "features" in prefix.split(".") else "iresnet"
        return official(family, depth, embedding_size=_rows(state, "fc.weight"))
    if FAMILIES["ir"].anchor in state:
        total = {depth: (sum(blocks),) for depth, blocks in networks.IR_BLOCKS.items()}
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
    """Return the network without preprocessing, with random weights, in evaluation mode.

    On the device "meta" it has shapes but no weights, and takes no time.
    """
    sizes = architecture.depth, architecture.embedding_size, architecture.eps
    if architecture.family == "facenet":
        return networks.inception_resnet(device).eval()
    with torch.device(device):
        if architecture.family in ("iresnet", "magface"):
            return networks.IResNet(*sizes).eval()
        return networks.IR(
            *sizes,
            inner_norm=architecture.family == "adaface",
            squeeze_excitation=architecture.squeeze_excitation,
            output_affine=architecture.output_affine,
        ).eval()


def build(architecture: Architecture, device: str = "cpu") -> BackboneEmbedder:
    """Return the model; for weights and device see `build_backbone`."""
    backbone = build_backbone(architecture, device)
    embedder = BackboneEmbedder(backbone, architecture.preprocessing)
    embedder.name, embedder.family = architecture.name, architecture.family
    embedder.title, embedder.assumed = architecture.title, architecture.assumptions
    return embedder.eval()


def _children(state: State, part: str) -> int:
    """Return the number of a part's numbered submodules: the highest number plus one."""
    names = (name.removeprefix(f"{part}.") for name in state if name.startswith(f"{part}."))
    numbers = [int(first) for name in names if (first := name.split(".")[0]).isdecimal()]
    return max(numbers, default=-1) + 1


def _depth(blocks: tuple[int, ...], known: Mapping[int, tuple[int, ...]], title: str) -> int:
    if blocks in known.values():
        return next(depth for depth, expected in known.items() if blocks == expected)
    found = ", ".join(map(str, blocks))
    listed = "; ".join(f"{depth} has {', '.join(map(str, b))}" for depth, b in known.items())
    raise WrongArchitecture(f"looks like an {title} of {found} blocks; known are: {listed}")


def _rows(state: State, name: str) -> int:
    """Return the output size of a linear layer, here the embedding size; 512 if it is missing."""
    weight = state.get(name)
    return weight.shape[0] if weight is not None and weight.ndim == 2 and len(weight) else 512
