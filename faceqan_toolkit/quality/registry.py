"""Quality estimators by method name; torch is imported when one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceqan_toolkit.settings import Settings

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder
    from faceqan_toolkit.quality.base import QualityEstimator


def make_estimator(settings: Settings, embedder: Embedder) -> QualityEstimator:
    """Return the estimator of a run's settings.

    Args:
        settings: the method, its options and the device.
        embedder: the recognition model.

    Raises:
        SettingsError: the method cannot work with the model, or a device this machine does not
            have.
        WeightsError: the head for preset "instant" cannot be loaded.
    """
    method, device = settings.method, settings.device
    if method == "serfiq":
        from faceqan_toolkit.quality.serfiq import SERFIQ

        return SERFIQ(embedder, seed=settings.seed, device=device)
    if method == "grafiqs":
        from faceqan_toolkit.quality.grafiqs import GraFIQs

        return GraFIQs(embedder, device=device)
    if method in ("magface", "norm"):
        from faceqan_toolkit.quality.norm import EmbeddingNorm, MagFace

        return (MagFace if method == "magface" else EmbeddingNorm)(embedder, device=device)
    if settings.preset == "instant":
        from faceqan_toolkit.quality.instant import InstantFaceQAN

        return InstantFaceQAN(embedder, device=device)
    from faceqan_toolkit.quality.faceqan import FaceQAN

    return FaceQAN(
        embedder,
        eps=settings.eps,
        steps=settings.steps,
        copies=settings.copies,
        exponent=settings.exponent,
        seed=settings.seed,
        clamp=settings.clamp,
        eps_mode=settings.eps_mode,
        precision=settings.precision,
        device=device,
        backend=settings.backend,
    )
