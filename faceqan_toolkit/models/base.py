"""What the rest of the package expects of a face recognition network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from faceqan_toolkit.models.preprocessing import Normalise, Preprocessing


class Embedder(nn.Module):
    """A network that maps aligned crops to embeddings and owns its preprocessing.

    `forward` takes (N, 3, S, S) float32, RGB, in [0, 1] and returns (N, D) float32 embeddings,
    not normalised. It is differentiable with respect to its input and computes every row of a
    batch independently (evaluation mode).

    Attributes:
        name: what settings and records call it.
        sha256: of the weights it was loaded from, hexadecimal.
        family: of architectures, such as "iresnet"; "" if it belongs to none.
        title: one line for people.
        input_size: S, pixels.
        template: how crops are cut, see `alignment.Template`.
        notes: what else people should know of how it was read.
        equal_lengths: all embeddings have the same length; None if nobody measured it yet, see
            `lengths.have_equal_lengths`.
        assumed: what nothing told and the family's default stands for, in words.
    """

    name: str = ""
    sha256: str = ""
    family: str = ""
    title: str = ""
    input_size: int = 112
    template: str = "arcface"
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    equal_lengths: bool | None = None

    def __call__(self, crops: Tensor) -> Tensor:
        """Return the embeddings of a batch of crops."""
        embeddings: Tensor = super().__call__(crops)
        return embeddings

    def stages(self) -> Sequence[nn.Module]:
        """Return the modules whose outputs, (N, C, H, W), end the network's stages; or none."""
        return ()


class BackboneEmbedder(Embedder):
    """A published network as its authors wrote it, behind the preprocessing it was trained with.

    Args:
        backbone: maps (N, 3, S, S) normalised crops to (N, D) embeddings, not normalised.
        preprocessing: what makes such crops from RGB in [0, 1].

    The constructor of a model of your own: a factory that `--model package.module:factory` names
    returns one.
    """

    def __init__(self, backbone: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.input_size, self.template = preprocessing.input_size, preprocessing.template
        self.normalise = Normalise(preprocessing)
        self.backbone = backbone

    def forward(self, crops: Tensor) -> Tensor:
        """Map (N, 3, S, S) crops, RGB in [0, 1], to (N, D) embeddings."""
        embeddings: Tensor = self.backbone(self.normalise(crops))
        return embeddings

    def stages(self) -> Sequence[nn.Module]:
        """Return those of the backbone."""
        known = getattr(self.backbone, "stages", None)
        stages: Sequence[nn.Module] = known() if known else ()
        return stages
