"""Faces cut out of photos as aligned crops, from full-size pixels where detail needs them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from faceqan_toolkit.alignment import ARCFACE, Template, align, detail_survives
from faceqan_toolkit.photos.decode import decode_full
from faceqan_toolkit.types import AlignedCrop, Face, Photo


class Cutter:
    """Cuts the faces of one photo; decodes it in full, once, if a face needs that.

    Args:
        photo: may be decoded at a reduced size.
        template: where faces come to lie in their crops.
        antialias: average pixels where a face is shrunk more than twice.
        timed: takes the name of a stage, "decode" or "align"; measures what runs inside.
    """

    def __init__(
        self,
        photo: Photo,
        template: Template,
        *,
        antialias: bool,
        timed: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> None:
        self.photo, self.template, self.antialias = photo, template, antialias
        self._timed = timed
        self._full: Photo | None = None

    def cut(self, face: Face) -> AlignedCrop:
        """Return a face's crop; it does not depend on the photo's other faces.

        Raises:
            Unalignable: see `Template.transform`.
            UnreadablePhoto, TooLarge: see `decode_full`.
        """
        photo = self.source(face)
        with self._timed("align"):
            return self._align(photo, face, self.template)

    def arcface(self, crop: AlignedCrop) -> AlignedCrop:
        """Return a crop's face as ArcFace's template has it, from the same pixels."""
        if self.template == ARCFACE:
            return crop
        return self._align(self.source(crop.face), crop.face, ARCFACE)

    def source(self, face: Face) -> Photo:
        """Return the photo that a face is cut from: full size where reduction would cost detail."""
        photo = self.photo
        if photo.reduction == 1 or detail_survives(
            self.template.transform(face, photo.size), photo.reduction
        ):
            return photo
        if self._full is None:
            with self._timed("decode"):
                self._full = decode_full(photo)
        return self._full

    def _align(self, photo: Photo, face: Face, template: Template) -> AlignedCrop:
        return align(
            photo.pixels,
            face,
            antialias=self.antialias,
            template=template,
            reduction=photo.reduction,
            photo_size=photo.size,
        )
