"""Models that users add: verified, converted, and kept with a checksum in a folder of theirs.

An added model is two files: the weights, and a card (JSON) that describes them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path

from faceqan_toolkit.errors import (
    ChecksumMismatch,
    DamagedWeights,
    MissingWeights,
    SettingsError,
    WeightsError,
)
from faceqan_toolkit.files import is_file, parse_json, read_text, replacing
from faceqan_toolkit.models.registry import Entry, entries, offered
from faceqan_toolkit.models.weights_file import is_onnx, read_weights_file
from faceqan_toolkit.settings import ModelOptions, is_model_name
from faceqan_toolkit.text import reason_of, short_checksum
from faceqan_toolkit.weights import checkout_weights

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import BackboneEmbedder, Embedder
    from faceqan_toolkit.models.checkpoints import Loaded

FOLDER_VARIABLE = "FACEQAN_TOOLKIT_MODELS"


@dataclass(frozen=True)
class Installed:
    """An added model.

    Attributes:
        entry: its description.
        path: its weights file.
        sha256: checksum of that file when it was added, hexadecimal.
        original: name and sha256 of the file it was converted from.
    """

    entry: Entry
    path: Path
    sha256: str
    original: tuple[str, str]

    @property
    def identity(self) -> str:
        """The sha256 of its weights, preprocessing and batch-norm epsilon."""
        entry = self.entry
        told = (entry.family, entry.channels, entry.mean, entry.std, entry.eps, entry.input_size,
                entry.template)  # fmt: skip
        return hashlib.sha256(f"{self.sha256} {told}".encode()).hexdigest()

    @property
    def size(self) -> int:
        """Size of its weights file in bytes.

        Raises:
            MissingWeights: the file is missing or cannot be read.
        """
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise self._missing(error) from error

    @property
    def card(self) -> Path:
        """The file that describes it."""
        return self.path.with_suffix(".json")

    def read(self) -> bytes:
        """Return the content of its weights file.

        Raises:
            MissingWeights: the file is missing or cannot be read.
            ChecksumMismatch: it has changed since it was added.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise self._missing(error) from error
        if (digest := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise ChecksumMismatch(
                f"{self.path} has changed: its sha256 is {short_checksum(digest)}, expected "
                f"{short_checksum(self.sha256)}; {self._advice}"
            )
        return content

    def describe(self) -> str:
        """Return the content of its card."""
        name, sha256 = self.original
        card = {
            "weights": self.path.name,
            "sha256": self.sha256,
            "made_from": {"name": name, "sha256": sha256},
            "model": asdict(self.entry),
        }
        return json.dumps(card, indent=2) + "\n"

    def _missing(self, error: OSError) -> MissingWeights:
        return MissingWeights(
            f"the weights {self.path} cannot be read: {reason_of(error)}; {self._advice}"
        )

    @property
    def _advice(self) -> str:
        name = self.path.stem
        return f"put the file back, or `faceqan-toolkit models remove {name}` and add it again"


def user_folder() -> Path:
    """Return the folder of the user's models: FACEQAN_TOOLKIT_MODELS, or in the user's data."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else user_data_path("faceqan-toolkit", False) / "models"


def checkout_folder() -> Path | None:
    """Return the folder of a checkout's models; None if the package runs from elsewhere."""
    weights = checkout_weights()
    return weights / "added" if weights else None


def find(name: str) -> Installed | None:
    """Return an added model; None if there is none of that name.

    Raises:
        DamagedWeights: its card cannot be read.
    """
    if not is_model_name(name):
        return None
    for folder in filter(None, (user_folder(), checkout_folder())):
        card = folder / f"{name}.json"
        if is_file(card):
            return _read_card(card)
    return None


def names() -> list[str]:
    """Return the names of all added models."""
    folders = filter(None, (user_folder(), checkout_folder()))
    found = {card.stem for folder in folders for card in folder.glob("*.json")}
    return sorted(filter(is_model_name, found))


def _read_card(path: Path) -> Installed:
    with _readable(path):
        card = parse_json(read_text(path))
        entry = Entry(**card["model"])
        # a registered model's current description replaces the one it was added with
        entry = entries().get(entry.name, entry)
        made_from = card["made_from"]
        return Installed(
            entry=entry,
            path=path.with_name(Path(card["weights"]).name),
            sha256=card["sha256"],
            original=(made_from["name"], made_from["sha256"]),
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedWeights(
            f"{path} cannot be read: {error}; delete it, and add the model again"
        ) from error


def add(
    name: str, file: Path, folder: Path, options: ModelOptions, licence: str = ""
) -> tuple[Installed, Embedder]:
    """Verify a weights file and keep it as a model.

    Args:
        name: a registered model's, which the file must then be; or a new one.
        file: a checkpoint or ONNX file; external data beside it is merged into the file kept.
        folder: where to keep it; made if missing.
        options: for a new model, the preprocessing that the file does not tell.
        licence: for a new model, the licence of its weights, in words.

    Returns:
        The added model, and its network.

    Raises:
        SettingsError: a name that cannot be used, or options for a registered model.
        WeightsError: the file is not that model, or is no model.
    """
    from faceqan_toolkit.models.checkpoints import load_weights

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


def remove(model: Installed) -> None:
    """Delete an added model, its card first: weights without a card are ignored.

    Raises:
        WeightsError: a file cannot be deleted.
    """
    try:
        model.card.unlink(missing_ok=True)
        model.path.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"cannot delete {model.path}: {reason_of(error)}") from error


def _check_name(name: str, registered: Entry | None, options: ModelOptions, licence: str) -> None:
    if not is_model_name(name):
        raise SettingsError(f"{name} is no model's name: use letters, digits, _ and -")
    if registered and registered.source == "built in":
        raise SettingsError(f"{name} is built in; choose another name")
    if name in offered():
        raise SettingsError(f"{name} is offered by an installed package; choose another name")
    given = [*options.given, *(["licence"] if licence else [])]
    if registered and given:
        raise SettingsError(f"--{given[0]} cannot be given for {name}: its entry decides")


def _converted(embedder: BackboneEmbedder) -> bytes:
    """Return a network's tensors as a safetensors file; the same tensors give the same bytes."""
    from safetensors.torch import save

    state = {name: value.contiguous() for name, value in embedder.backbone.state_dict().items()}
    return save(dict(sorted(state.items())))


def _described(name: str, loaded: Loaded, licence: str) -> Entry:
    """Return the description of a model that is not registered."""
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
    """Write the weights, then the card; each file whole or not at all."""
    try:
        model.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(model.path) as temporary:
            temporary.write_bytes(content)
        with replacing(model.card) as temporary:
            temporary.write_text(model.describe(), encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"cannot write {model.path}: {reason_of(error)}") from error
