"""From a method's name to the estimator that computes it; torch is imported when one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.methods import METHODS
from faceqan_toolkit.settings import Settings

if TYPE_CHECKING:
    from faceqan_toolkit.embedders.base import Embedder
    from faceqan_toolkit.estimator import QualityEstimator


def make_estimator(
    method: str, settings: Settings, embedder: Embedder | str | None = None
) -> QualityEstimator:
    """Return what scores aligned crops.

    Args:
        method: one of `METHODS`.
        settings: the method's options and the device.
        embedder: the recognition model, or its name; None means the settings' model.

    Raises:
        SettingsError: no such method, a setting it would ignore is not at its default, it cannot
            work with the model, or a device this machine does not have.
        WeightsError: the model cannot be loaded.
    """
    check_method(method, settings)
    embedder = settings.model if embedder is None else embedder
    device = settings.device
    if method == "serfiq":
        from faceqan_toolkit.serfiq import SERFIQ

        return SERFIQ(embedder, seed=settings.seed, device=device)
    if method == "grafiqs":
        from faceqan_toolkit.grafiqs import GraFIQs

        return GraFIQs(embedder, device=device)
    if method in ("magface", "norm"):
        from faceqan_toolkit.embedding_norm import EmbeddingNorm, MagFace

        return (MagFace if method == "magface" else EmbeddingNorm)(embedder, device=device)
    if settings.preset == "instant":
        from faceqan_toolkit.instant import InstantFaceQAN

        return InstantFaceQAN(embedder, device=device)
    from faceqan_toolkit.quality import FaceQAN

    return FaceQAN(
        embedder,
        eps=settings.eps,
        steps=settings.steps,
        copies=settings.copies,
        exponent=settings.exponent,
        seed=settings.seed,
        clamp=settings.clamp,
        device=device,
        backend=settings.backend,
    )


def check_method(method: str, settings: Settings) -> None:
    """Refuse a method nobody knows, and settings it would ignore.

    Raises:
        SettingsError: the message says which.
    """
    if method not in METHODS:
        raise SettingsError(f"method is {method}; it must be one of {', '.join(METHODS)}")
    default = Settings()
    for name in METHODS["faceqan"]:
        value, own = getattr(settings, name), getattr(default, name)
        if name not in METHODS[method] and value != own:
            raise SettingsError(
                f"{name.replace('_', '-')} is {value}, which the method {method} would ignore; "
                "leave it out"
            )
