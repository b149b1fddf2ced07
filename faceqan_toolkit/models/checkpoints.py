"""Load weights files, checkpoints and ONNX: read without running code, unwrap, recognise, check."""

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

from faceqan_toolkit.errors import (
    DamagedWeights,
    FaceQANError,
    MissingDependency,
    SettingsError,
    UnsafeCheckpoint,
    UnsupportedGraph,
    WeightsError,
    WrongArchitecture,
)
from faceqan_toolkit.models import architectures
from faceqan_toolkit.models.architectures import (
    FAMILIES,
    Architecture,
    Loaded,
    State,
    architecture_of,
)
from faceqan_toolkit.models.base import Preprocessing, check_embeddings
from faceqan_toolkit.models.registry import Entry
from faceqan_toolkit.models.weights import is_onnx, is_safetensors
from faceqan_toolkit.settings import AS_TRAINED, ModelOptions
from faceqan_toolkit.text import first_line, first_names
from faceqan_toolkit.threads import keep_onnxruntime_private

NESTING = 4
"""Depth to which nested dictionaries are searched."""

STAND_INS = (
    "argparse.Namespace",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
"""Classes that official checkpoints contain beside tensors; `_StandIn` replaces them."""

TORCH_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""The first object, a pickled integer, of a file in torch's format before 1.6."""

CONVERT = (
    "if you trust the file, load it in the program that made it and save its tensors there: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)


class _StandIn(dict[Any, Any]):
    """Replaces a class of `STAND_INS`, which is never imported: holds its state, has no code."""


@dataclass(frozen=True)
class Found:
    """A network's tensors inside a checkpoint.

    Attributes:
        state: tensors under the network's own names.
        place: keys of the dictionaries around it, outermost first.
        prefix: text before the names there, its last dot included.
    """

    state: dict[str, Tensor]
    place: tuple[str, ...]
    prefix: str


def load_weights(
    content: bytes, entry: Entry | None = None, *, options: ModelOptions = AS_TRAINED, where: str
) -> Loaded:
    """Return the model in a weights file's content, checked.

    Args:
        content: a checkpoint or an ONNX file, told apart by their first bytes.
        entry: the registered model it must be; None accepts any known network.
        options: without an entry, the preprocessing that the file does not tell.
        where: name of the file in messages.

    Raises:
        WeightsError: it cannot be loaded, or is not the registered model.
        SettingsError: an option that does not apply to this file.
        MissingDependency: an ONNX file, and the extra `onnx` is not installed.
    """
    try:
        if is_onnx(content):
            return _load_onnx(content, entry, options)
        if entry and entry.family == "onnx":
            raise WrongArchitecture(f"{entry.name} is an ONNX file, this is none")
        return load_network(content, architecture_of(entry) if entry else None, options)
    except WeightsError as error:
        raise type(error)(f"{where}: {error}") from error


def _load_onnx(content: bytes, entry: Entry | None, options: ModelOptions) -> Loaded:
    if entry and entry.family != "onnx":
        raise WrongArchitecture(f"an ONNX file; {entry.name} is {architecture_of(entry).title}")
    if options.eps is not None:
        raise SettingsError("norm-eps cannot be given for an ONNX file: it holds its own")
    loaded = load_onnx(content, architectures.preprocessing_of(entry) if entry else None)
    assumed = () if entry else loaded.assumed
    if options.given:
        loaded = load_onnx(content, loaded.embedder.preprocessing.adjusted(options))
    embedder, size = loaded.embedder, loaded.embedding_size
    if entry and entry.embedding_size != size:
        raise WrongArchitecture(
            f"gives {size}-d embeddings; {entry.name} has {entry.embedding_size}"
        )
    told = embedder.preprocessing.in_words()
    embedder.assumed = tuple(told[name] for name in assumed if getattr(options, name, None) is None)
    return Loaded(embedder, size)


def load_onnx(content: bytes, preprocessing: Preprocessing | None = None) -> Loaded:
    """Return the network in an ONNX file's content, checked.

    The embeddings of two crops equal those of onnxruntime (within 1e-4 of their length), embeddings
    do not depend on the batch, and the gradient with respect to the crops agrees with a finite
    difference. Quantised weights are dequantised. Quantised activations keep their range but are
    not rounded, since rounding has no gradient.

    Args:
        content: a graph with its weights. Its input is a batch of S x S images, and one of its
            outputs is their embeddings.
        preprocessing: the graph's input. None means RGB pixels in 0..255 or 0..1 for a graph that
            scales them itself, and (pixel - 127.5) / 127.5 for any other.

    Raises:
        MissingDependency: the extra `onnx` is not installed.
        DamagedWeights: not an ONNX file, cut off, NaN or infinite weights, or embeddings that are
            not finite or the same for unlike crops.
        MissingWeights: the weights are in other files.
        WrongArchitecture: inputs or outputs are not those of a face recognition network, an
            embedding depends on the batch, or the preprocessing is for another size.
        UnsupportedGraph: it cannot be converted, or the conversion computes something else.
    """
    keep_onnxruntime_private()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from faceqan_toolkit.models.onnx_network import read_network
        except ImportError as error:
            raise MissingDependency(
                "an ONNX model needs an extra: pip install 'faceqan-toolkit[onnx]'"
            ) from error
        try:
            return read_network(content, preprocessing)
        except FaceQANError:
            raise
        except Exception as error:  # any, from three libraries that read a stranger's file
            reason = first_line(error, kind=True)
            raise UnsupportedGraph(f"cannot be converted: {reason}") from error


def load_network(
    content: bytes, architecture: Architecture | None = None, options: ModelOptions = AS_TRAINED
) -> Loaded:
    """Return the model in a checkpoint's content.

    Args:
        content: a `.pth`, `.pt`, `.ckpt` or `.safetensors` file, in any official wrapping.
        architecture: what it must be, eps and preprocessing included; None recognises it by the
            tensors' names and shapes, and takes the family's defaults for the rest.
        options: replace the family's defaults.

    Raises:
        DamagedWeights: empty, cut off, not a checkpoint, or NaN or infinite weights.
        UnsafeCheckpoint: reading it would run code.
        WrongArchitecture: not a known network, or its tensors do not fit.
    """
    found = strip(read_state_dict(content))
    looks = architectures.identify(found.state, found.prefix)
    if architecture is None:
        architecture = architectures.adjust(looks, options)
    elif architecture.layout != looks.layout or (
        looks.family == "magface" and architecture.family != "magface"
    ):
        raise WrongArchitecture(f"looks like {looks.title}; expected {architecture.title}")
    embedder = architectures.build(architecture, "meta")
    fitted = _fit(found.state, embedder.backbone.state_dict(), architecture.title)
    embedder.backbone.load_state_dict(fitted, assign=True)
    embedder.requires_grad_(False)
    embedder.sha256, embedder.equal_lengths = hashlib.sha256(content).hexdigest(), False
    check_embeddings(embedder, architecture.embedding_size)
    return Loaded(embedder, architecture.embedding_size, architecture)


def read_state_dict(content: bytes) -> Mapping[str, Any]:
    """Return the tensors of a checkpoint by name, or nested dictionaries of them.

    `content` is a safetensors file, or one written by `torch.save`, which is read by torch's
    weights-only unpickler: no code in it runs. Raise DamagedWeights if it is empty, cut off or
    another file, UnsafeCheckpoint for a pickle of other things than tensors or a TorchScript
    program.
    """
    if not content:
        raise DamagedWeights("the file is empty")
    held = _read_safetensors(content) if is_safetensors(content) else _read_pickle(content)
    if not isinstance(held, Mapping):
        raise DamagedWeights(f"no state dict, but a {type(held).__name__}")
    return held


def strip(checkpoint: Mapping[str, Any]) -> Found:
    """Return the one network in a checkpoint, without dictionaries and prefixes around it.

    A network is found by its family's anchor; the text before the anchor's name is the prefix of
    all its tensors. Heads, optimisers and training state are ignored. Raise WrongArchitecture if
    there is no known network, or more than one.
    """
    dictionaries = list(_dictionaries(checkpoint))
    parts = {family.anchor: family.parts for family in FAMILIES.values()}
    found = [
        Found(_network(state, name.removesuffix(anchor), own), place, name.removesuffix(anchor))
        for place, state in dictionaries
        for anchor, own in parts.items()
        for name in state
        if f".{name}".endswith(f".{anchor}")
    ]
    if len(found) == 1:
        return found[0]
    if found:
        places = " and ".join("/".join([*one.place, one.prefix or "(no prefix)"]) for one in found)
        raise WrongArchitecture(f"holds {len(found)} networks, at {places}; save one alone")
    names = [name for _, state in dictionaries for name in state]
    if not names:
        raise WrongArchitecture("holds no tensors")
    known = "; ".join(family.title for family in FAMILIES.values())
    raise WrongArchitecture(
        f"no known network among its {len(names)} tensors ({first_names(names)}); known are {known}"
    )


def _read_safetensors(content: bytes) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedWeights(f"a safetensors file, damaged or cut off: {error}") from error


def _read_pickle(content: bytes) -> Any:
    # older releases of torch run code when they read its oldest format, a tar file
    if not content.startswith((b"PK\x03\x04", b"\x80")):
        raise DamagedWeights(
            "no checkpoint: neither safetensors nor ONNX nor written by torch.save"
        )
    try:
        try:
            return _load_weights_only(content)
        except pickle.UnpicklingError as error:
            if _refused(error) not in STAND_INS:
                raise
            with torch.serialization.safe_globals([(_StandIn, name) for name in STAND_INS]):
                return _load_weights_only(content)
    except Exception as error:
        # damaged bytes fail in every way: KeyError, ValueError, EOFError, RuntimeError, ...
        unsafe = ""
        if "TorchScript" in str(error):
            unsafe = "a TorchScript program, which is code, is not run"
        elif refused := _refused(error):
            unsafe = f"reading it would run {refused}"
        elif content.startswith(b"\x80") and TORCH_MAGIC not in content[:64]:
            unsafe = "a plain pickle, which could run code, is refused"
        if unsafe:
            raise UnsafeCheckpoint(f"{unsafe}; {CONVERT}") from error
        raise DamagedWeights(
            "no checkpoint, or one that is damaged or cut off: "
            f"torch cannot read it ({type(error).__name__})"
        ) from error


def _load_weights_only(content: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")


def _refused(error: Exception) -> str:
    """Return the class or function that torch's unpickler refused; "" for any other error."""
    refused = re.search(r"\b(?:GLOBAL|[Uu]nsupported class) ([\w.]+)", str(error))
    return refused[1] if isinstance(error, pickle.UnpicklingError) and refused else ""


def _dictionaries(
    value: Mapping[Any, Any], place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield the keys that lead to each nested dictionary, and the tensors in it."""
    named = {name: item for name, item in value.items() if isinstance(name, str)}
    yield place, {name: item for name, item in named.items() if isinstance(item, Tensor)}
    if len(place) < NESTING:
        for name, item in named.items():
            if isinstance(item, Mapping):
                yield from _dictionaries(item, (*place, name))


def _network(state: State, prefix: str, parts: frozenset[str]) -> dict[str, Tensor]:
    own = {name[len(prefix) :]: one for name, one in state.items() if name.startswith(prefix)}
    return {name: one for name, one in own.items() if name.split(".")[0] in parts}


def _fit(state: State, expected: State, title: str) -> dict[str, Tensor]:
    """Return the tensors in the network's types.

    Raise WrongArchitecture if tensors are missing, unexpected or of another shape, DamagedWeights
    for NaN or infinite values.
    """
    # not used in evaluation mode, and missing in older or converted checkpoints
    counters = {name: torch.tensor(0) for name in expected if name.endswith("num_batches_tracked")}
    state = {**counters, **state}
    faults = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "misshapen": [
            f"{name} {_shape_text(state[name])} in place of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and not _same_kind(state[name], tensor)
        ],
    }
    told = "; ".join(f"{len(n)} {kind}: {first_names(n)}" for kind, n in faults.items() if n)
    if told:
        raise WrongArchitecture(f"looks like {title}, but does not fit it: {told}")
    fitted = {name: state[name].to(tensor.dtype) for name, tensor in expected.items()}
    for name, tensor in fitted.items():
        if not tensor.isfinite().all():
            raise DamagedWeights(f"{name} has NaN or infinite values")
    return fitted


def _same_kind(found: Tensor, expected: Tensor) -> bool:
    """Return whether a tensor can be cast to another: same shape, dense, real, float if needed."""
    fits = found.is_floating_point() or not (found.is_complex() or expected.is_floating_point())
    return fits and found.shape == expected.shape and found.layout == torch.strided


def _shape_text(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"
