"""The built-in quality methods. torch is imported when an estimator is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from faceqan_toolkit.fields import option
from faceqan_toolkit.registry import METHODS, register_method
from faceqan_toolkit.settings import QualitySettings, Settings

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder
    from faceqan_toolkit.quality.base import QualityEstimator


def make_estimator(settings: Settings, embedder: Embedder) -> QualityEstimator:
    """Return the estimator of a run's method, options and device.

    Raises:
        SettingsError: the method cannot work with the model, or there is no such device.
        WeightsError: the head for preset "instant" cannot be loaded.
    """
    made: QualityEstimator = METHODS.find(settings.quality.method).make(settings, embedder)
    return made


@register_method("faceqan", uses=QualitySettings.optional, title="FaceQAN")
def faceqan(settings: Settings, embedder: Embedder) -> QualityEstimator:
    """FaceQAN: how far an adversarial attack on noisy copies of the crop moves its embedding.

    The mean and the spread of the similarities between the crop's embedding and those of the
    attacked copies, times the similarity of the crop and its mirror image. Up to 1, seldom below
    0. Works with every model.
    """
    quality, device = settings.quality, settings.work.device
    from faceqan_toolkit.quality.faceqan import FaceQAN, InstantFaceQAN

    if quality.preset == "instant":
        return InstantFaceQAN(embedder, device=device)
    names = ("eps", "steps", "copies", "exponent", "seed", "clamp", "eps_mode", "precision",
             "backend")  # fmt: skip
    return FaceQAN(embedder, device=device, **{name: getattr(quality, name) for name in names})


@dataclass(frozen=True)
class SERFIQOptions:
    """Options of SER-FIQ; the seed of its dropout masks is the setting `seed`."""

    passes: int = option(
        100, "Random subnetworks that embed each crop.", at_least=2, at_most=10_000, metavar="M"
    )
    dropout: float = option(
        0.5, "Probability that dropout zeroes a feature.", above=0, below=1, metavar="P"
    )


@register_method("serfiq", options=SERFIQOptions, uses=("seed",), title="SER-FIQ")
def serfiq(settings: Settings, embedder: Embedder) -> QualityEstimator:
    """SER-FIQ: how far apart the embeddings lie that random subnetworks give one crop.

    0 to 1, in practice a narrow band. Works with models that end in a fully connected layer.
    """
    from faceqan_toolkit.quality.serfiq import SERFIQ

    options, seed = asdict(settings.quality.options), settings.quality.seed
    return SERFIQ(embedder, **options, seed=seed, device=settings.work.device)


@dataclass(frozen=True)
class GraFIQsOptions:
    """Options of GraFIQs."""

    at: str = option(
        "auto", "Tensor of the gradient: the crop, or the output of a stage; auto is block2, or "
        "image for networks without known stages.",
        choices=("auto", "image", "block1", "block2", "block3", "block4"),
    )  # fmt: skip


@register_method("grafiqs", options=GraFIQsOptions, title="GraFIQs")
def grafiqs(settings: Settings, embedder: Embedder) -> QualityEstimator:
    """GraFIQs: gradient magnitude of the distance between the crop's batch-norm statistics and
    those of the training faces.

    At most 0. Works with models that keep their batch norms.
    """
    from faceqan_toolkit.quality.grafiqs import GraFIQs

    return GraFIQs(embedder, at=settings.quality.options.at, device=settings.work.device)


@register_method("magface", title="MagFace")
def magface(settings: Settings, embedder: Embedder) -> QualityEstimator:
    """MagFace: length of the embedding, in a network trained to make it the quality.

    Above 0; MagFace's loss asks for 10 to 110. Works with MagFace's models.
    """
    from faceqan_toolkit.quality.norm import MagFace

    return MagFace(embedder, device=settings.work.device)


@register_method("norm", title="embedding norm")
def norm(settings: Settings, embedder: Embedder) -> QualityEstimator:
    """Embedding norm: length of the embedding, in any network.

    Above 0, on the model's own scale. Works with models that do not normalise embeddings.
    """
    from faceqan_toolkit.quality.norm import EmbeddingNorm

    return EmbeddingNorm(embedder, device=settings.work.device)
