"""The recognition models the package knows; torch is imported when one is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from faceqan_toolkit.errors import (
    ChecksumMismatch,
    MissingWeights,
    UnknownModel,
    WrongArchitecture,
)

if TYPE_CHECKING:
    from faceqan_toolkit.embedders.base import Embedder


@dataclass(frozen=True)
class ModelInfo:
    """A recognition model that can be loaded by name.

    Attributes:
        name: what `--model` takes.
        build: reads a weights file into the network.
        weights: the file's name.
        sha256: of that file, hexadecimal.
        licence: of the weights.
        summary: one line for people.
    """

    name: str
    build: Callable[[Path], Embedder]
    weights: str
    sha256: str
    licence: str
    summary: str


def _build_sface(weights: Path) -> Embedder:
    from safetensors.torch import load_file

    from faceqan_toolkit.embedders.sface import SFace, dequantise

    network = SFace()
    network.load_state_dict(dequantise(load_file(weights)))
    return network


MODELS = {
    model.name: model
    for model in (
        ModelInfo(
            name="sface",
            build=_build_sface,
            weights="sface.safetensors",
            sha256="146df921b4a5df8efc3edee933b2f09538cab34d91d46b5f0093f7ba16865f65",
            licence="Apache-2.0",
            summary="SFace, MobileNet-like, 128-d, built in",
        ),
    )
}


def model_info(name: str) -> ModelInfo:
    """Return what is known of a model.

    Raises:
        UnknownModel: no model goes by that name.
    """
    try:
        return MODELS[name]
    except KeyError:
        known = ", ".join(sorted(MODELS))
        raise UnknownModel(f"unknown model {name!r}; known models: {known}") from None


def weights_path(model: ModelInfo) -> Path:
    """Return where a model's weights lie: inside the installed package, or in a checkout.

    Raises:
        MissingWeights: in neither.
    """
    package = Path(str(files("faceqan_toolkit")))
    for folder in (package / "weights", package.parent / "weights"):
        if (folder / model.weights).is_file():
            return folder / model.weights
    raise MissingWeights(f"the weights of {model.name} ({model.weights}) are not installed")


def load_embedder(name: str) -> Embedder:
    """Return a model on the CPU, in evaluation mode, no weight asking for gradients.

    Raises:
        WeightsError: unknown model, missing or changed weights, weights that do not fit.
    """
    model = model_info(name)
    path = weights_path(model)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise MissingWeights(f"{path}: {error.strerror}") from error
    if digest != model.sha256:
        raise ChecksumMismatch(
            f"{path} is damaged or not the weights of {name}: "
            f"its sha256 is {digest}, expected {model.sha256}"
        )
    try:
        network = model.build(path)
    except (RuntimeError, KeyError) as error:
        raise WrongArchitecture(f"{path} does not fit the network of {name}: {error}") from error
    network.name, network.sha256 = name, digest
    return network.eval().requires_grad_(False)
