"""Weights files from elsewhere become added models: verified, converted, written down."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors.torch import save

from faceqan_toolkit.errors import ChecksumMismatch, MissingWeights, SettingsError, WeightsError
from faceqan_toolkit.files import replacing
from faceqan_toolkit.models import factories
from faceqan_toolkit.models.base import BackboneEmbedder, Embedder
from faceqan_toolkit.models.files import Loaded, load_weights
from faceqan_toolkit.models.installed import Installed, find
from faceqan_toolkit.models.registry import Entry, entries
from faceqan_toolkit.models.weights_file import is_onnx, read_weights_file
from faceqan_toolkit.settings import ModelOptions, is_model_name
from faceqan_toolkit.wording import reason_of, short_checksum


def add(
    name: str, file: Path, folder: Path, options: ModelOptions, licence: str = ""
) -> tuple[Installed, Embedder]:
    """Verify a weights file and keep it as a model.

    Args:
        name: a registered model's, which the file must then be; or a new one.
        file: a checkpoint, or ONNX; external data beside it is taken into the one file kept.
        folder: where to keep it; made if it is not there.
        options: of a new model, what the file cannot tell.
        licence: of a new model's weights, in words.

    Returns:
        The added model, and its network.

    Raises:
        SettingsError: a name that cannot be used, or options for a registered model.
        WeightsError: the file is not that model, or no model.
    """
    registered = entries().get(name)
    _check_name(name, registered, options, licence)
    try:
        content, original = read_weights_file(file)
    except OSError as error:
        raise MissingWeights(f"{file}: {reason_of(error)}") from error
    existing = find(name)
    if existing is not None:
        if existing.original[1] == original and not (options.given or licence):
            where = str(existing.path)
            return existing, load_weights(existing.read(), existing.entry, where=where).embedder
        raise SettingsError(
            f"{name} was added before, from {existing.original[0]}; "
            f"`faceqan-toolkit models remove {name}` comes first, or choose another name"
        )
    if registered and registered.sha256 and registered.sha256 != original:
        raise ChecksumMismatch(
            f"{file} is not the published {registered.file}: its sha256 is "
            f"{short_checksum(original)}, expected {short_checksum(registered.sha256)}"
        )
    loaded = load_weights(content, registered, options=options, where=str(file))
    entry = registered or _described(name, loaded, licence)
    suffix = ".onnx"
    if not is_onnx(content):
        content, suffix = _converted(loaded.embedder), ".safetensors"
    sha256 = hashlib.sha256(content).hexdigest()
    model = Installed(entry, folder / f"{name}{suffix}", sha256, (file.name, original))
    _write(model, content)
    return model, loaded.embedder


def _check_name(name: str, registered: Entry | None, options: ModelOptions, licence: str) -> None:
    if not is_model_name(name):
        raise SettingsError(f"{name} is no model's name: use letters, digits, _ and -")
    if registered and registered.source == "built in":
        raise SettingsError(f"{name} is built in; choose another name")
    if name in factories.offered():
        raise SettingsError(f"{name} is offered by an installed package; choose another name")
    given = [*options.given, *(["licence"] if licence else [])]
    if registered and given:
        raise SettingsError(f"--{given[0]} cannot be given for {name}: its entry decides")


def _converted(embedder: BackboneEmbedder) -> bytes:
    """Return a network's tensors as a safetensors file, the same bytes every time."""
    state = {name: value.contiguous() for name, value in embedder.backbone.state_dict().items()}
    return save(dict(sorted(state.items())))


def _described(name: str, loaded: Loaded, licence: str) -> Entry:
    """Return the entry of a model that nobody registered."""
    architecture, own = loaded.architecture, loaded.embedder.preprocessing
    mean, std = own.mean, own.std
    assert isinstance(mean, float)
    assert isinstance(std, float)
    return Entry(
        name=name,
        title=loaded.embedder.title,
        family=loaded.embedder.family,
        depth=architecture.depth if architecture else 0,
        embedding_size=loaded.embedding_size,
        squeeze_excitation=architecture.squeeze_excitation if architecture else False,
        output_affine=architecture.output_affine if architecture else False,
        channels=own.channels,
        mean=mean,
        std=std,
        eps=architecture.eps if architecture else 0.0,
        input_size=own.input_size,
        template=own.template,
        trained_on="not told",
        paper="not told",
        licence=licence or "not told",
        commercial="unclear",
        source="added by you",
        file="",
    )


def _write(model: Installed, content: bytes) -> None:
    """Write weights, then the card that makes them a model: each whole or not at all."""
    try:
        model.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(model.path) as temporary:
            temporary.write_bytes(content)
        with replacing(model.card) as temporary:
            temporary.write_text(model.describe(), encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"cannot write {model.path}: {reason_of(error)}") from error


def remove(model: Installed) -> None:
    """Delete an added model: the card first, so that half of it is no model.

    Raises:
        WeightsError: a file cannot be deleted.
    """
    try:
        model.card.unlink(missing_ok=True)
        model.path.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"cannot delete {model.path}: {reason_of(error)}") from error
