"""The recognition models the package knows; torch is imported when one is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faceqan_toolkit.errors import SettingsError, UnknownModel, WrongArchitecture
from faceqan_toolkit.weights import read_weights

if TYPE_CHECKING:
    from faceqan_toolkit.embedders.base import Embedder


@dataclass(frozen=True)
class HeadInfo:
    """A head that predicts scores from a model's own features, for `--preset instant`.

    Attributes:
        weights: the file's name.
        sha256: of that file, hexadecimal.
    """

    weights: str
    sha256: str


@dataclass(frozen=True)
class ModelInfo:
    """A recognition model that can be loaded by name.

    Attributes:
        name: what `--model` takes.
        build: makes the network from a weights file's content.
        weights: the file's name.
        sha256: of that file, hexadecimal.
        licence: of the weights.
        summary: one line for people.
        head: None if the model has none.
    """

    name: str
    build: Callable[[bytes], Embedder]
    weights: str
    sha256: str
    licence: str
    summary: str
    head: HeadInfo | None = None


def _build_sface(content: bytes) -> Embedder:
    from safetensors.torch import load

    from faceqan_toolkit.embedders.sface import SFace, dequantise

    network = SFace()
    network.load_state_dict(dequantise(load(content)))
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
            head=HeadInfo(
                weights="sface_instant.safetensors",
                sha256="d5e4e082f13c483e4b4933f1b17e951e7a6e8462545684c4498c69e9acffdf80",
            ),
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


def head_of(name: str) -> HeadInfo:
    """Return a model's head for `--preset instant`.

    Raises:
        UnknownModel: no model goes by that name.
        SettingsError: it has no head.
    """
    head = model_info(name).head
    if head is None:
        have = ", ".join(model.name for model in MODELS.values() if model.head)
        raise SettingsError(
            f"--preset instant needs a model with a head of its own ({have}), {name} has none; "
            "use --preset fast"
        )
    return head


def weights_of(name: str, preset: str) -> str:
    """Return the sha256 of the weights that a model's scores come from, the head's after a plus.

    Raises:
        UnknownModel: no model goes by that name.
        SettingsError: preset "instant", and the model has no head.
    """
    weights = model_info(name).sha256
    return f"{weights}+{head_of(name).sha256}" if preset == "instant" else weights


def load_embedder(name: str) -> Embedder:
    """Return a model on the CPU, in evaluation mode, no weight asking for gradients.

    Raises:
        WeightsError: unknown model, missing or changed weights, weights that do not fit.
    """
    model = model_info(name)
    content = read_weights(model.weights, model.sha256)
    try:
        network = model.build(content)
    except (RuntimeError, KeyError) as error:
        raise WrongArchitecture(
            f"{model.weights} does not fit the network of {name}: {error}"
        ) from error
    network.name, network.sha256 = name, model.sha256
    return network.eval().requires_grad_(False)
