"""Recognition models known by name: registered here, or offered by installed packages. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files

from faceqan_toolkit.errors import SettingsError

GROUP = "faceqan_toolkit.models"
"""Group of the entry points by which packages offer models."""


@dataclass(frozen=True)
class Entry:
    """Description of a model without its weights.

    Attributes:
        name: value of `--model`.
        title: description, one line.
        family, depth, embedding_size, squeeze_excitation, output_affine: of the network, see
            `architectures.Architecture`; the families "sface" (built in) and "onnx" have no depth.
        channels, mean, std, input_size, template: see `preprocessing.Preprocessing`.
        eps: batch-norm epsilon.
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
    """A head that predicts scores from one model's features, for `--preset instant`.

    Attributes:
        weights: file name in `weights/`.
        sha256: checksum of that file, hexadecimal.
        notice: licence notice for its users.
    """

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
    """Return a model's head for `--preset instant`.

    Raises:
        SettingsError: the model has no head.
    """
    if name not in HEADS:
        raise SettingsError(
            f"--preset instant needs a model with a head of its own ({', '.join(HEADS)}), "
            f"{name} has none; use --preset fast"
        )
    return HEADS[name]


def is_factory(model: str) -> bool:
    """Return whether a model's name has the form "package.module:factory"."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", model) is not None


def offered() -> Mapping[str, str]:
    """Return the models that installed packages offer: "package.module:factory" by name."""
    return {point.name: point.value for point in entry_points(group=GROUP)}
