"""FaceNet: facenet-pytorch's Inception-ResNet v1, without normalisation of the embedding."""

from __future__ import annotations

from facenet_pytorch.models.inception_resnet_v1 import InceptionResnetV1
from torch import nn


class InceptionResnet(InceptionResnetV1):  # type: ignore[misc]
    """The network without preprocessing; nothing is downloaded.

    Maps (N, 3, 160, 160) normalised crops to (N, 512) embeddings, not normalised.
    """

    def __init__(self) -> None:
        super().__init__(pretrained=None)
        # as a classifier it skips normalisation; the identity replaces its last layer
        self.classify, self.logits = True, nn.Identity()

    def stages(self) -> tuple[nn.Module, ...]:
        """Return the stem and the blocks before each reduction: 17, 17, 8 and 3 pixels a side."""
        return self.conv2d_4b, self.repeat_1, self.repeat_2, self.repeat_3
