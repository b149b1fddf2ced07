"""Load a recognition model by name, weights file or factory; add a weights file as a model.

torch is imported on loading.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceqan_toolkit.errors import (
    ChecksumMismatch,
    MissingWeights,
    SettingsError,
    UnknownModel,
    WeightsError,
    WrongArchitecture,
)
from faceqan_toolkit.files import is_file, is_folder, replacing
from faceqan_toolkit.models import registry, weights
from faceqan_toolkit.models.registry import Entry, Installed, entries
from faceqan_toolkit.settings import AS_TRAINED, ModelOptions, is_model_name
from faceqan_toolkit.text import reason_of, short_checksum

if TYPE_CHECKING:
    from faceqan_toolkit.models.architectures import Loaded
    from faceqan_toolkit.models.base import Embedder

BUILT_IN = "sface"


def load_model(
    model: str = BUILT_IN,
    *,
    channels: str | None = None,
    pixel_mean: float | None = None,
    pixel_std: float | None = None,
    norm_eps: float | None = None,
) -> Embedder:
    """Return a recognition model on the CPU, in evaluation mode, without weight gradients.

    Args:
        model: a name (`faceqan-toolkit models list` shows them), the path of a weights file, or
            "package.module:factory". A name has neither dot nor slash.
        channels: for a weights file, the order of the colour channels, "RGB" or "BGR".
        pixel_mean, pixel_std: for a weights file, the normalisation of pixels in 0..255.
        norm_eps: for a checkpoint, the batch-norm epsilon.

    Raises:
        WeightsError: unknown model, or weights that are missing, changed, damaged or do not fit.
        SettingsError: an option for a model whose preprocessing is known, or out of its range.
        MissingDependency: an ONNX file, and the extra `onnx` is not installed.
    """
    return find_model(model, ModelOptions(channels, pixel_mean, pixel_std, norm_eps)).load()


@dataclass(frozen=True)
class FoundModel:
    """A recognition model whose weights exist, not loaded yet.

    Attributes:
        name: name in records.
        sha256: sha256 of the weights; for an added model, of its preprocessing too. Hexadecimal.
        size: size of the weights, bytes.
        load: returns the network on the CPU, in evaluation mode, without weight gradients.
        entry: its description; None for a file or a factory.
    """

    name: str
    sha256: str
    size: int
    load: Callable[[], Embedder]
    entry: Entry | None = None

    def weights(self, preset: str) -> str:
        """Return the sha256 of all weights its scores depend on: "model", or "model+head".

        Raise SettingsError for preset "instant" if the model has no head.
        """
        head = f"+{registry.head_of(self.name).sha256}" if preset == "instant" else ""
        return self.sha256 + head


def find_model(model: str, options: ModelOptions = AS_TRAINED) -> FoundModel:
    """Return a model without loading it; for its name, the options and errors see `load_model`."""
    if not is_model_name(model):
        if is_file(Path(model)) or not registry.is_factory(model):
            return _from_file(Path(model), options)
        _refuse(options, model, "its factory decides")
        return _from_factory(model, model)
    _refuse(options, model, "its preprocessing is known")
    entry = entries().get(model)
    if entry and model == BUILT_IN:
        size = weights.weights_path(entry.file).stat().st_size
        return FoundModel(model, entry.sha256, size, _load_sface, entry)
    if found := registry.find_added(model):
        load = partial(_load_installed, found)
        return FoundModel(model, found.identity, found.size, load, found.entry)
    if entry:
        raise MissingWeights(
            f"{model} is known, but its weights are not here. Get {entry.file} from "
            f"{entry.source} ({entry.licence}), then: faceqan-toolkit models add {model} FILE"
        )
    if model in (others := registry.offered()):
        return _from_factory(model, others[model])
    known = [*entries(), *registry.added_names(), *others]
    near = [name for name in known if model.lower() in name] or get_close_matches(model, known, 1)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    file = f"a file needs its path, such as ./{model}"
    if is_folder(Path(model)):
        file = "the folder of that name is no weights file"
    raise UnknownModel(
        f"unknown model {model!r}; {hint}`faceqan-toolkit models list` shows the known ones, {file}"
    )


def add_model(
    name: str, file: Path, folder: Path, options: ModelOptions, licence: str = ""
) -> tuple[Installed, Embedder]:
    """Verify a weights file and keep it as a model.

    Args:
        name: a registered model's, which the file must then be; or a new one.
        file: a checkpoint or ONNX file; external data beside it is merged into the file kept.
        folder: where to keep it; made if missing.
        options, licence: for a new model, the preprocessing that the file does not tell, and the
            licence of its weights, in words.

    Raises:
        SettingsError: a name that cannot be used, or options for a registered model.
        WeightsError: the file is not that model, or is no model.
    """
    from safetensors.torch import save

    from faceqan_toolkit.models.checkpoints import load_weights

    registered = entries().get(name)
    _check_name(name, registered, options, licence)
    try:
        content, original = weights.read_weights_file(file)
    except OSError as error:
        raise MissingWeights(f"{file}: {reason_of(error)}") from error
    if existing := registry.find_added(name):
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
    entry, suffix = registered or _described(name, loaded, licence), ".onnx"
    if not weights.is_onnx(content):
        # sorted: the same tensors give the same bytes
        tensors = sorted(loaded.embedder.backbone.state_dict().items())
        content, suffix = save({key: one.contiguous() for key, one in tensors}), ".safetensors"
    sha256 = hashlib.sha256(content).hexdigest()
    model = Installed(entry, folder / f"{name}{suffix}", sha256, (file.name, original))
    _write(model, content)
    return model, loaded.embedder


def _check_name(name: str, registered: Entry | None, options: ModelOptions, licence: str) -> None:
    if not is_model_name(name):
        raise SettingsError(f"{name} is no model's name: use letters, digits, _ and -")
    if registered and registered.source == "built in":
        raise SettingsError(f"{name} is built in; choose another name")
    if name in registry.offered():
        raise SettingsError(f"{name} is offered by an installed package; choose another name")
    given = [*options.given, *(["licence"] if licence else [])]
    if registered and given:
        raise SettingsError(f"--{given[0]} cannot be given for {name}: its entry decides")


def _described(name: str, loaded: Loaded, licence: str) -> Entry:
    """Return the description of a model that is not registered."""
    network: dict[str, Any] = {"depth": 0, "eps": 0.0}  # an ONNX file's
    if loaded.architecture:
        names = ("depth", "eps", "squeeze_excitation", "output_affine")
        network = {name: getattr(loaded.architecture, name) for name in names}
    return Entry(
        name=name,
        title=loaded.embedder.title,
        family=loaded.embedder.family,
        embedding_size=loaded.embedding_size,
        **network,
        **asdict(loaded.embedder.preprocessing),
        trained_on="not told",
        paper="not told",
        licence=licence or "not told",
        commercial="unclear",
        source="added by you",
        file="",
    )


def _write(model: Installed, content: bytes) -> None:
    """Write the weights, then the card; each file whole or not at all."""
    try:
        model.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(model.path) as temporary:
            temporary.write_bytes(content)
        with replacing(model.card) as temporary:
            temporary.write_text(model.describe(), encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"cannot write {model.path}: {reason_of(error)}") from error


def _refuse(options: ModelOptions, model: str, why: str) -> None:
    if options.given:
        named = " and ".join(f"--{name}" for name in options.given)
        raise SettingsError(f"{named} cannot be given for {model}: {why}")


def _load_sface() -> Embedder:
    from safetensors.torch import load

    from faceqan_toolkit.models.networks import SFace, dequantise

    entry = entries()[BUILT_IN]
    content = weights.read_weights(entry.file, entry.sha256)
    network = SFace()
    try:
        network.load_state_dict(dequantise(load(content)))
    except (RuntimeError, KeyError) as error:
        raise WrongArchitecture(
            f"{entry.file} does not fit the network of {entry.name}: {error}"
        ) from error
    network.name, network.sha256 = entry.name, entry.sha256
    network.family, network.title = entry.family, entry.title
    network.equal_lengths = False
    return network.eval().requires_grad_(False)


def _load_installed(found: Installed) -> Embedder:
    from faceqan_toolkit.models.checkpoints import load_weights

    embedder = load_weights(found.read(), found.entry, where=str(found.path)).embedder
    embedder.name, embedder.title = found.entry.name, found.entry.title
    embedder.sha256, embedder.assumed = found.identity, ()
    return embedder


def _from_file(path: Path, options: ModelOptions) -> FoundModel:
    with _readable(path):
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise MissingWeights(f"`model` {path}: not a file")
        size, sha256 = weights.identify_weights(path)
    # files of the same name are different models if their content differs
    name = f"{path.name}@{sha256[:8]}"

    def load() -> Embedder:
        from faceqan_toolkit.models.checkpoints import load_weights

        with _readable(path):
            content, found = weights.read_weights_file(path)
        if found != sha256:
            raise ChecksumMismatch(
                f"`model` {path} has changed since this run began: its sha256 is {found}, "
                f"expected {sha256}"
            )
        embedder = load_weights(content, options=options, where=str(path)).embedder
        embedder.name, embedder.sha256 = name, sha256
        return embedder

    return FoundModel(name, sha256, size, load)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise MissingWeights(f"`model` {path}: {reason_of(error)}") from error


def _from_factory(name: str, factory: str) -> FoundModel:
    embedder = build(factory)
    # every worker process calls the factory again
    if build(factory).sha256 != embedder.sha256:
        raise WrongArchitecture(
            f"`model` {factory} makes another model at every call; load weights, or set the seed"
        )
    embedder.name = re.sub(r"\s", "", name)
    size = sum(tensor.nbytes for tensor in embedder.state_dict().values())
    return FoundModel(embedder.name, embedder.sha256, size, lambda: embedder)


def build(factory: str) -> Embedder:
    """Return the model that "package.module:factory" makes, checked.

    Modules of the current folder can be imported too. Raise WeightsError if it cannot be imported,
    fails, or does not return a usable `Embedder`.
    """
    from faceqan_toolkit.models.base import Embedder, check_embeddings, embedding_size

    module, _, name = factory.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        embedder = getattr(importlib.import_module(module), name)()
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        raise WeightsError(
            f"`model` {factory} cannot be made: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(here)
    if not isinstance(embedder, Embedder):
        raise WrongArchitecture(
            f"`model` {factory} returned a {type(embedder).__name__}; it must return a "
            "faceqan_toolkit.Embedder, such as BackboneEmbedder(network, Preprocessing(...))"
        )
    embedder = embedder.cpu().float().eval().requires_grad_(False)
    try:
        check_embeddings(embedder, embedding_size(embedder))
    except Exception as error:  # and so may its forward pass
        raise WrongArchitecture(f"`model` {factory}: {error}") from error
    embedder.sha256 = _digest(embedder)
    embedder.title = embedder.title or f"made by {factory}"
    return embedder


def _digest(embedder: Embedder) -> str:
    """Return the sha256 of a model's tensors and preprocessing."""
    crop = f"{embedder.input_size} {embedder.template} {getattr(embedder, 'preprocessing', '')}"
    digest = hashlib.sha256(crop.encode())
    for name, tensor in embedder.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
