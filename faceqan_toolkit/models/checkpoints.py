"""Weights files from elsewhere: read without running their code, unwrapped, checked, loaded."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from faceqan_toolkit.errors import DamagedWeights, UnsafeCheckpoint, WrongArchitecture
from faceqan_toolkit.models.architectures import (
    FAMILIES,
    Architecture,
    adjust,
    build_backbone,
    identify,
)
from faceqan_toolkit.models.base import BackboneEmbedder, Embedder
from faceqan_toolkit.models.weights_file import is_safetensors
from faceqan_toolkit.settings import AS_TRAINED, ModelOptions

NESTING = 4
"""Dictionaries inside dictionaries are searched this deep."""

NAMED = 5
"""Tensors of a kind that a message names."""

STAND_INS = (
    "argparse.Namespace",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
"""Classes that official checkpoints mention beside their tensors; none is ever imported."""


class _StandIn(dict[Any, Any]):
    """Takes the place of a class of `STAND_INS`; holds what it is given, does nothing."""


@dataclass(frozen=True)
class Found:
    """A network's tensors inside a checkpoint.

    Attributes:
        state: tensors under the network's own names.
        place: keys of the dictionaries it was in, outermost first.
        prefix: what stood before the names there, with its last dot.
    """

    state: dict[str, Tensor]
    place: tuple[str, ...]
    prefix: str


@dataclass(frozen=True)
class RecognisedNetwork:
    """A model and what it was recognised as."""

    embedder: BackboneEmbedder
    architecture: Architecture


def load_network(
    content: bytes, architecture: Architecture | None = None, options: ModelOptions = AS_TRAINED
) -> RecognisedNetwork:
    """Return the model that a weights file's content holds.

    Args:
        content: of a `.pth`, `.pt`, `.ckpt` or `.safetensors` file, in any official wrapping.
        architecture: what it must be, eps and preprocessing included; None takes what the
            tensors' names and shapes tell and the family's own for the rest.
        options: what to take in place of the family's own.

    Returns:
        The model on the CPU in evaluation mode, float32, no weight asking for gradients, and
        its architecture.

    Raises:
        DamagedWeights: empty, cut off, no checkpoint, or NaN or infinite weights.
        UnsafeCheckpoint: reading it would run code.
        WrongArchitecture: no known network, or its tensors do not fit.
    """
    found = strip(read_state_dict(content))
    looks = identify(found.state, found.prefix)
    if architecture is None:
        architecture = adjust(looks, options)
    elif architecture.layout != looks.layout or (
        looks.family == "magface" and architecture.family != "magface"
    ):
        raise WrongArchitecture(f"looks like {looks.title}; expected {architecture.title}")
    backbone = build_backbone(architecture, "meta")
    fitted = _fit(found.state, backbone.state_dict(), architecture.title)
    backbone.load_state_dict(fitted, assign=True)
    embedder = BackboneEmbedder(backbone, architecture.preprocessing)
    embedder.name, embedder.sha256 = architecture.name, hashlib.sha256(content).hexdigest()
    embedder.family, embedder.title = architecture.family, architecture.title
    embedder.assumed = architecture.assumptions
    embedder.equal_lengths = False
    embedder.eval().requires_grad_(False)
    check_embeddings(embedder, architecture.embedding_size)
    return RecognisedNetwork(embedder, architecture)


def read_state_dict(content: bytes) -> Mapping[str, Any]:
    """Return what a weights file holds: tensors by name, perhaps inside other dictionaries.

    Args:
        content: of a safetensors file, or of one that `torch.save` wrote. It is told by its
            content; a pickle is read by torch's weights-only reader, which runs no code.

    Raises:
        DamagedWeights: empty, cut off or no such file.
        UnsafeCheckpoint: a pickle that asks for more than tensors, or a TorchScript program.
    """
    if not content:
        raise DamagedWeights("the file is empty")
    held = _read_safetensors(content) if is_safetensors(content) else _read_pickle(content)
    if not isinstance(held, Mapping):
        raise DamagedWeights(f"no state dict, but a {type(held).__name__}")
    return held


def strip(checkpoint: Mapping[str, Any]) -> Found:
    """Return the one network in a checkpoint, freed of dictionaries and prefixes around it.

    A network is found by a parameter that only its family has; all that stands before that
    parameter's name is the wrapping. Heads, optimisers and training state stay behind.

    Raises:
        WrongArchitecture: no known network, or more than one.
    """
    found = []
    tensors = 0
    for place, state in _dictionaries(checkpoint):
        tensors += len(state)
        for anchor in {family.anchor for family in FAMILIES.values()}:
            for name in state:
                if name == anchor or name.endswith(f".{anchor}"):
                    found.append(_cut_out(state, place, name.removesuffix(anchor), anchor))
    if len(found) == 1:
        return found[0]
    if found:
        places = " and ".join("/".join([*one.place, one.prefix or "(no prefix)"]) for one in found)
        raise WrongArchitecture(f"holds {len(found)} networks, at {places}; save one alone")
    if not tensors:
        raise WrongArchitecture("holds no tensors")
    known = "; ".join(family.title for family in FAMILIES.values())
    names = [name for _, state in _dictionaries(checkpoint) for name in state]
    raise WrongArchitecture(
        f"no known network among its {tensors} tensors ({_listed(names)}); known are {known}"
    )


def embedding_size(embedder: Embedder) -> int:
    """Return how many numbers a model's embeddings have.

    Raises:
        WrongArchitecture: it gives no row of numbers for a crop.
    """
    size = embedder.input_size
    with torch.inference_mode():
        embedding = embedder(torch.zeros(1, 3, size, size))
    if embedding.ndim != 2 or len(embedding) != 1 or not embedding.numel():
        raise WrongArchitecture(f"a crop gives an embedding of shape {tuple(embedding.shape)}")
    return embedding.shape[1]


def check_embeddings(embedder: Embedder, embedding_size: int) -> None:
    """Make sure that a model gives every crop of a batch an embedding of its own.

    Raises:
        DamagedWeights: embeddings that are not finite, or equal for unlike crops.
        WrongArchitecture: another shape, or rows that depend on the batch.
    """
    size = embedder.input_size
    crops = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = embedder(crops)
        alone = torch.cat([embedder(crop[None]) for crop in crops])
    if together.shape != (2, embedding_size):
        raise WrongArchitecture(
            f"two crops give embeddings of shape {tuple(together.shape)}, "
            f"expected (2, {embedding_size})"
        )
    if not together.isfinite().all():
        raise DamagedWeights("embeddings are not finite")
    tolerance = 1e-3 * together.norm(dim=1).max()
    if (together - alone).norm(dim=1).max() > tolerance:
        raise WrongArchitecture("a crop's embedding depends on the batch it is in")
    if (together[0] - together[1]).norm() <= 1e-3 * tolerance:
        raise DamagedWeights("unlike crops have equal embeddings")


def _read_safetensors(content: bytes) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedWeights(f"a safetensors file, damaged or cut off: {error}") from error


def _read_pickle(content: bytes) -> Any:
    # torch's oldest format, a tar file, is not read without running code by its older releases
    if not content.startswith((b"PK\x03\x04", b"\x80")):
        raise DamagedWeights(
            "no checkpoint: neither safetensors nor ONNX nor written by torch.save"
        )
    try:
        try:
            return _load_weights_only(content)
        except pickle.UnpicklingError as error:
            if _wanted(error) not in STAND_INS:
                raise
            with torch.serialization.safe_globals([(_StandIn, name) for name in STAND_INS]):
                return _load_weights_only(content)
    except Exception as error:
        # damaged bytes fail in every way: KeyError, ValueError, EOFError, RuntimeError, ...
        if "TorchScript" in str(error):
            raise UnsafeCheckpoint(
                f"a TorchScript program, which is code, is not run; {CONVERT}"
            ) from error
        if wanted := _wanted(error):
            raise UnsafeCheckpoint(f"reading it would run {wanted}; {CONVERT}") from error
        if content.startswith(b"\x80") and TORCH_MAGIC not in content[:64]:
            raise UnsafeCheckpoint(
                f"a plain pickle, which could run code, is refused; {CONVERT}"
            ) from error
        raise DamagedWeights(
            "no checkpoint, or one that is damaged or cut off: "
            f"torch cannot read it ({type(error).__name__})"
        ) from error


TORCH_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""What torch's older format begins with, in a pickle of its own."""

CONVERT = (
    "if you trust the file, load it in the program that made it and save its tensors there: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)


def _load_weights_only(content: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")


def _wanted(error: Exception) -> str:
    """Return the class or function that torch's reader refused, if that is what the error says."""
    refused = re.search(r"\b(?:GLOBAL|[Uu]nsupported class) ([\w.]+)", str(error))
    return refused[1] if isinstance(error, pickle.UnpicklingError) and refused else ""


def _dictionaries(
    value: Mapping[Any, Any], place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield every dictionary's own tensors, and where it lies."""
    named = {name: item for name, item in value.items() if isinstance(name, str)}
    yield place, {name: item for name, item in named.items() if isinstance(item, Tensor)}
    if len(place) < NESTING:
        for name, item in named.items():
            if isinstance(item, Mapping):
                yield from _dictionaries(item, (*place, name))


def _cut_out(
    state: Mapping[str, Tensor], place: tuple[str, ...], prefix: str, anchor: str
) -> Found:
    parts = next(family.parts for family in FAMILIES.values() if family.anchor == anchor)
    own = {
        inner: tensor
        for name, tensor in state.items()
        if name.startswith(prefix) and (inner := name[len(prefix) :]).split(".")[0] in parts
    }
    return Found(own, place, prefix)


def _fit(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], title: str
) -> dict[str, Tensor]:
    """Return the tensors in the network's types.

    Raises:
        WrongArchitecture: tensors missing, unexpected or of another shape.
        DamagedWeights: NaN or infinite values.
    """
    # no part of the arithmetic, and older or converted checkpoints lack it
    counters = {name: torch.tensor(0) for name in expected if name.endswith("num_batches_tracked")}
    state = {**counters, **state}
    faults = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "misshapen": [
            f"{name} {_described(state[name])} in place of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and not _same_kind(state[name], tensor)
        ],
    }
    if any(faults.values()):
        told = "; ".join(f"{len(n)} {kind}: {_listed(n)}" for kind, n in faults.items() if n)
        raise WrongArchitecture(f"looks like {title}, but does not fit it: {told}")
    fitted = {name: state[name].to(tensor.dtype) for name, tensor in expected.items()}
    for name, tensor in fitted.items():
        if not tensor.isfinite().all():
            raise DamagedWeights(f"{name} has NaN or infinite values")
    return fitted


def _same_kind(found: Tensor, expected: Tensor) -> bool:
    """Tell whether one can stand for the other, in whatever precision."""
    return (
        found.shape == expected.shape
        and found.layout == torch.strided
        and (found.is_floating_point() or not expected.is_floating_point())
        and not found.is_complex()
    )


def _described(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
