"""Known recognition models: registered here, offered by installed packages, or added by users.

An added model is two files: the weights, and a card (JSON) that describes them. No torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from platformdirs import user_data_path

from faceqan_toolkit.errors import (
    ChecksumMismatch,
    DamagedWeights,
    MissingWeights,
    SettingsError,
    WeightsError,
)
from faceqan_toolkit.files import is_file, parse_json, read_text
from faceqan_toolkit.models.weights import checkout_weights
from faceqan_toolkit.settings import is_model_name
from faceqan_toolkit.text import reason_of, short_checksum

GROUP = "faceqan_toolkit.models"
"""Group of the entry points by which packages offer models."""

FOLDER_VARIABLE = "FACEQAN_TOOLKIT_MODELS"
"""Environment variable that names the folder of the user's models."""


@dataclass(frozen=True)
class Entry:
    """Description of a model without its weights.

    Attributes:
        name: value of `--model`.
        title: description, one line.
        family, depth, embedding_size, squeeze_excitation, output_affine, eps: see
            `architectures.Architecture`; the families "sface" (built in) and "onnx" have no depth.
        channels, mean, std, input_size, template: see `base.Preprocessing`.
        trained_on: training set.
        paper: reference to cite.
        licence: licence of the weights.
        commercial: whether it allows commercial use: "yes", "no" or "unclear".
        source: where to get the weights, in words.
        file: name of the weights file there; the built-in model's is in `weights/`.
        sha256: published checksum of that file, hexadecimal; "" if none was published.
    """

    name: str
    title: str
    family: str
    depth: int
    embedding_size: int
    channels: str
    mean: float
    std: float
    eps: float
    input_size: int
    template: str
    trained_on: str
    paper: str
    licence: str
    commercial: str
    source: str
    file: str
    sha256: str = ""
    squeeze_excitation: bool = False
    output_affine: bool = False

    @property
    def notice(self) -> str:
        """A notice about the licence for users of the weights; "" if none is needed."""
        if self.commercial != "no":
            return ""
        return f"{self.name}: these weights are not for commercial use ({self.licence})"


@cache
def entries() -> Mapping[str, Entry]:
    """Return all registered models by name, in the order of `models.json`."""
    text = (files("faceqan_toolkit.models") / "models.json").read_text(encoding="utf-8")
    return {item["name"]: Entry(**item) for item in json.loads(text)}


@dataclass(frozen=True)
class HeadInfo:
    """A head for `--preset instant`: file name in `weights/`, its sha256, and licence notice."""

    weights: str
    sha256: str
    notice: str


HEADS = {
    "sface": HeadInfo(
        weights="sface_instant.safetensors",
        sha256="d5e4e082f13c483e4b4933f1b17e951e7a6e8462545684c4498c69e9acffdf80",
        notice="its head was trained on research-only data; do not use it commercially",
    )
}
"""Heads by model name."""


def head_of(name: str) -> HeadInfo:
    """Return a model's head, or raise SettingsError if it has none."""
    if name not in HEADS:
        raise SettingsError(
            f"`preset` instant needs a model with a head of its own ({', '.join(HEADS)}), "
            f"{name} has none; use `preset` fast"
        )
    return HEADS[name]


def is_factory(model: str) -> bool:
    """Return whether a model's name has the form "package.module:factory"."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", model) is not None


def offered() -> Mapping[str, str]:
    """Return the models that installed packages offer: "package.module:factory" by name."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


@dataclass(frozen=True)
class Installed:
    """A model that the user added.

    Attributes:
        entry: description.
        path: weights file.
        sha256: checksum of that file when it was added, hexadecimal.
        original: name and sha256 of the file it was converted from.
    """

    entry: Entry
    path: Path
    sha256: str
    original: tuple[str, str]

    @property
    def identity(self) -> str:
        """The sha256 of the weights, preprocessing and batch-norm epsilon."""
        entry = self.entry
        told = (entry.family, entry.channels, entry.mean, entry.std, entry.eps, entry.input_size,
                entry.template)  # fmt: skip
        return hashlib.sha256(f"{self.sha256} {told}".encode()).hexdigest()

    @property
    def size(self) -> int:
        """Size of the weights file in bytes; see `read` for errors."""
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise self._missing(error) from error

    @property
    def card(self) -> Path:
        """Path of the file that describes the model."""
        return self.path.with_suffix(".json")

    def read(self) -> bytes:
        """Return the content of the weights file.

        Raise MissingWeights if it cannot be read, ChecksumMismatch if it has changed.
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
        """Return the content of the card."""
        card = {
            "weights": self.path.name,
            "sha256": self.sha256,
            "made_from": dict(zip(("name", "sha256"), self.original, strict=True)),
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


def _cards(name: str) -> list[Path]:
    """Return the paths of cards by model name or pattern, the user's first."""
    folders = filter(None, (user_folder(), checkout_folder()))
    return [card for folder in folders for card in folder.glob(f"{name}.json")]


def find_added(name: str) -> Installed | None:
    """Return an added model, or None; raise DamagedWeights if its card cannot be read."""
    cards = filter(is_file, _cards(name) if is_model_name(name) else [])
    return next(map(_read_card, cards), None)


def added_names() -> list[str]:
    """Return the names of all added models."""
    return sorted({card.stem for card in _cards("*") if is_model_name(card.stem)})


def _read_card(path: Path) -> Installed:
    try:
        card = parse_json(read_text(path))
        entry, made_from = Entry(**card["model"]), card["made_from"]
        # a registered model's current description replaces the one it was added with
        entry = entries().get(entry.name, entry)
        weights = path.with_name(Path(card["weights"]).name)
        return Installed(entry, weights, card["sha256"], (made_from["name"], made_from["sha256"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedWeights(
            f"{path} cannot be read: {error}; delete it, and add the model again"
        ) from error


@dataclass(frozen=True)
class Listed:
    """A model by its name, and whether its weights are installed.

    Attributes:
        name: value of `--model`.
        state: "built in", "added", "not here", "damaged" or "offered" (by an installed package).
        title: description, reason of the damage, or "package.module:factory".
        trained_on, commercial: see `Entry`.
    """

    name: str
    state: str
    title: str
    trained_on: str = ""
    commercial: str = ""


def known_models() -> Iterator[Listed]:
    """Yield all models that have a name: registered ones, the user's own, those of packages."""
    added, registered = added_names(), entries()
    for entry in registered.values():
        state = entry.source if entry.source == "built in" else "not here"
        state = "added" if entry.name in added else state
        yield Listed(entry.name, state, entry.title, entry.trained_on, entry.commercial)
    for name in (name for name in added if name not in registered):
        try:
            if found := find_added(name):
                title, commercial = found.entry.title, found.entry.commercial
                yield Listed(name, "added", title, commercial=commercial)
        except DamagedWeights as error:
            yield Listed(name, "damaged", str(error))
    for name, factory in offered().items():
        yield Listed(name, "offered", factory, commercial="unclear")


def remove_added(model: Installed) -> None:
    """Delete an added model, or raise WeightsError.

    The card goes first: weights without a card are ignored.
    """
    try:
        model.card.unlink(missing_ok=True)
        model.path.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"cannot delete {model.path}: {reason_of(error)}") from error
