"""The recognition models the package knows by name, as data: what they are and who made them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Entry:
    """What is known of a model, its weights apart.

    Attributes:
        name: what `--model` takes.
        title: one line for people.
        family, depth, embedding_size, squeeze_excitation, output_affine: of the network, see
            `architectures.Architecture`; the families "sface" (built in) and "onnx" have no depth.
        channels, mean, std, input_size, template: see `preprocessing.Preprocessing`.
        eps: of batch norms.
        trained_on: training set.
        paper: what to cite.
        licence: of the weights.
        commercial: whether that allows commercial use: "yes", "no" or "unclear".
        source: where to get them, in words.
        file: what they are called there; "sface" has its own.
        sha256: of that file, hexadecimal, where somebody published it; "" where nobody did.
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
        """What users of the weights must be told; "" if nothing."""
        if self.commercial != "no":
            return ""
        return f"{self.name}: these weights are not for commercial use ({self.licence})"


@cache
def entries() -> Mapping[str, Entry]:
    """Return all registered models by name, in the order of the data file."""
    text = (files("faceqan_toolkit.models") / "models.json").read_text(encoding="utf-8")
    return {item["name"]: Entry(**item) for item in json.loads(text)}
