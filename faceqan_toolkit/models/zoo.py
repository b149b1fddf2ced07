"""From what `--model` says to a network; torch is imported when one is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from faceqan_toolkit.errors import (
    ChecksumMismatch,
    MissingWeights,
    SettingsError,
    UnknownModel,
    WrongArchitecture,
)
from faceqan_toolkit.files import is_file, is_folder
from faceqan_toolkit.models import factories, installed
from faceqan_toolkit.models.registry import Entry, entries
from faceqan_toolkit.models.weights_file import identify_weights, read_weights_file
from faceqan_toolkit.settings import AS_TRAINED, ModelOptions, is_model_name
from faceqan_toolkit.weights import read_weights, weights_path
from faceqan_toolkit.wording import reason_of

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

BUILT_IN = "sface"


@dataclass(frozen=True)
class HeadInfo:
    """A head that predicts scores from a model's own features, for `--preset instant`.

    Attributes:
        weights: the file's name.
        sha256: of that file, hexadecimal.
        notice: what its users must be told.
    """

    weights: str
    sha256: str
    notice: str


HEADS = {
    "sface": HeadInfo(
        weights="sface_instant.safetensors",
        sha256="d5e4e082f13c483e4b4933f1b17e951e7a6e8462545684c4498c69e9acffdf80",
        notice="its head was learned from photos published for research, and is for research use",
    )
}


@dataclass(frozen=True)
class FoundModel:
    """A recognition model that is known to be there, and how to load it.

    Attributes:
        name: what records say.
        sha256: of its weights, and of what was told of them when they were added, hexadecimal.
        size: of its weights, bytes.
        load: returns the network on the CPU, in evaluation mode, no weight asking for gradients.
        entry: what is known of it; None for a file or a factory.
    """

    name: str
    sha256: str
    size: int
    load: Callable[[], Embedder]
    entry: Entry | None = None

    def weights(self, preset: str) -> str:
        """Return the sha256 of what its scores come from, the head's after a plus.

        Raises:
            SettingsError: preset "instant", and the model has no head.
        """
        return f"{self.sha256}+{head_of(self.name).sha256}" if preset == "instant" else self.sha256


def find_model(model: str, options: ModelOptions = AS_TRAINED) -> FoundModel:
    """Return the model that a name, a weights file's path or "package.module:factory" means.

    Args:
        model: a name has neither dot nor slash.
        options: for a file, what its tensors do not tell.

    Raises:
        UnknownModel: no model goes by that name.
        MissingWeights: its weights, or the file, are not there.
        WeightsError: a factory that cannot be used.
        SettingsError: options for a model whose preprocessing is known.
    """
    if not is_model_name(model):
        if is_file(Path(model)) or not factories.is_factory(model):
            return _from_file(Path(model), options)
        _refuse(options, model, "its factory decides")
        return _from_factory(model, model)
    _refuse(options, model, "what it wants is known")
    if model == BUILT_IN:
        entry = entries()[model]
        size = weights_path(entry.file).stat().st_size
        return FoundModel(model, entry.sha256, size, _load_sface, entry)
    found = installed.find(model)
    if found is not None:
        entry = found.entry
        return FoundModel(model, found.identity, found.size, lambda: _load_installed(found), entry)
    if model in entries():
        entry = entries()[model]
        raise MissingWeights(
            f"{model} is known, but its weights are not here. Get {entry.file} from "
            f"{entry.source} ({entry.licence}), then: faceqan-toolkit models add {model} FILE"
        )
    if model in (offered := factories.offered()):
        return _from_factory(model, offered[model])
    known = [*entries(), *installed.names(), *offered]
    near = [name for name in known if model.lower() in name] or get_close_matches(model, known, 1)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    file = (
        "the folder of that name is no weights file"
        if is_folder(Path(model))
        else f"a file needs its path, such as ./{model}"
    )
    raise UnknownModel(
        f"unknown model {model!r}; {hint}`faceqan-toolkit models list` shows the known ones, {file}"
    )


def load_embedder(model: str, options: ModelOptions = AS_TRAINED) -> Embedder:
    """Return a model on the CPU, in evaluation mode, no weight asking for gradients.

    Args:
        model, options: see `find_model`.

    Raises:
        WeightsError: unknown model, missing or changed weights, weights that do not fit.
        SettingsError: see `find_model`.
    """
    return find_model(model, options).load()


def head_of(name: str) -> HeadInfo:
    """Return a model's head for `--preset instant`.

    Raises:
        SettingsError: it has no head.
    """
    if name not in HEADS:
        raise SettingsError(
            f"--preset instant needs a model with a head of its own ({', '.join(HEADS)}), "
            f"{name} has none; use --preset fast"
        )
    return HEADS[name]


def _refuse(options: ModelOptions, model: str, why: str) -> None:
    if options.given:
        named = " and ".join(f"--{name}" for name in options.given)
        raise SettingsError(f"{named} cannot be given for {model}: {why}")


def _load_sface() -> Embedder:
    from safetensors.torch import load

    from faceqan_toolkit.models.sface import SFace, dequantise

    entry = entries()[BUILT_IN]
    content = read_weights(entry.file, entry.sha256)
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


def _load_installed(found: installed.Installed) -> Embedder:
    from faceqan_toolkit.models.files import load_weights

    embedder = load_weights(found.read(), found.entry, where=str(found.path)).embedder
    embedder.name, embedder.title = found.entry.name, found.entry.title
    embedder.sha256, embedder.assumed = found.identity, ()
    return embedder


def _from_file(path: Path, options: ModelOptions) -> FoundModel:
    with _readable(path):
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise MissingWeights(f"--model {path}: not a file")
        size, sha256 = identify_weights(path)
    # two files of one name are two models
    name = f"{path.name}@{sha256[:8]}"

    def load() -> Embedder:
        from faceqan_toolkit.models.files import load_weights

        with _readable(path):
            content, found = read_weights_file(path)
        if found != sha256:
            raise ChecksumMismatch(
                f"--model {path} has changed since this run began: its sha256 is {found}, "
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
        raise MissingWeights(f"--model {path}: {reason_of(error)}") from error


def _from_factory(name: str, factory: str) -> FoundModel:
    embedder = factories.build(factory)
    # every process makes its own
    if factories.build(factory).sha256 != embedder.sha256:
        raise WrongArchitecture(
            f"--model {factory} makes another model at every call; load weights, or set the seed"
        )
    embedder.name = re.sub(r"\s", "", name)
    size = sum(tensor.nbytes for tensor in embedder.state_dict().values())
    return FoundModel(embedder.name, embedder.sha256, size, lambda: embedder)
