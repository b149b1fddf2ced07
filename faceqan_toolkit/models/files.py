"""A weights file's content to a network, whatever kind of file it is."""

from __future__ import annotations

from dataclasses import dataclass

from faceqan_toolkit.errors import SettingsError, WeightsError, WrongArchitecture
from faceqan_toolkit.models.architectures import Architecture
from faceqan_toolkit.models.base import BackboneEmbedder
from faceqan_toolkit.models.checkpoints import load_network
from faceqan_toolkit.models.preprocessing import Preprocessing
from faceqan_toolkit.models.registry import Entry
from faceqan_toolkit.models.weights_file import is_onnx
from faceqan_toolkit.settings import AS_TRAINED, ModelOptions


def architecture_of(entry: Entry) -> Architecture:
    """Return the network a registered model is."""
    return Architecture(
        family=entry.family,
        depth=entry.depth,
        embedding_size=entry.embedding_size,
        squeeze_excitation=entry.squeeze_excitation,
        output_affine=entry.output_affine,
        eps=entry.eps,
        preprocessing=preprocessing_of(entry),
    )


def preprocessing_of(entry: Entry) -> Preprocessing:
    """Return what a registered model was trained to see."""
    return Preprocessing(
        entry.channels, entry.mean, entry.std, input_size=entry.input_size, template=entry.template
    )


@dataclass(frozen=True)
class Loaded:
    """A model from a weights file.

    Attributes:
        embedder: on the CPU in evaluation mode, no weight asking for gradients.
        embedding_size: D.
        architecture: None if it came as a graph of its own.
    """

    embedder: BackboneEmbedder
    embedding_size: int
    architecture: Architecture | None = None


def load_weights(
    content: bytes,
    entry: Entry | None = None,
    *,
    options: ModelOptions = AS_TRAINED,
    where: str,
) -> Loaded:
    """Return the model that a weights file's content holds, checked.

    Args:
        content: of a checkpoint or an ONNX file; which one is told by its content.
        entry: what it must be; None takes what it looks like.
        options: without an entry, what the file cannot tell.
        where: what messages call the file.

    Raises:
        WeightsError: it cannot be loaded, or is not what it must be.
        SettingsError: an option that the file leaves no choice about.
        MissingDependency: an ONNX file, and the extra is not installed.
    """
    try:
        if is_onnx(content):
            return _load_onnx(content, entry, options)
        if entry is not None and entry.family == "onnx":
            raise WrongArchitecture(f"{entry.name} is an ONNX file, this is none")
        loaded = load_network(content, architecture_of(entry) if entry else None, options)
        architecture = loaded.architecture
        return Loaded(loaded.embedder, architecture.embedding_size, architecture)
    except WeightsError as error:
        raise type(error)(f"{where}: {error}") from error


def _load_onnx(content: bytes, entry: Entry | None, options: ModelOptions) -> Loaded:
    from faceqan_toolkit.models.onnx_model import load_onnx

    if entry is not None and entry.family != "onnx":
        raise WrongArchitecture(f"an ONNX file; {entry.name} is {architecture_of(entry).title}")
    if options.eps is not None:
        raise SettingsError("norm-eps cannot be given for an ONNX file: it holds its own")
    loaded = load_onnx(content, preprocessing_of(entry) if entry else None)
    assumed = () if entry else loaded.assumed
    if options.given:
        loaded = load_onnx(content, loaded.embedder.preprocessing.adjusted(options))
    if entry is not None and entry.embedding_size != loaded.embedding_size:
        raise WrongArchitecture(
            f"gives {loaded.embedding_size}-d embeddings; {entry.name} has {entry.embedding_size}"
        )
    embedder = loaded.embedder
    told = embedder.preprocessing.in_words()
    embedder.family, embedder.title = "onnx", loaded.title
    embedder.notes = loaded.notes
    embedder.assumed = tuple(told[name] for name in assumed if getattr(options, name, None) is None)
    return Loaded(embedder, loaded.embedding_size)
