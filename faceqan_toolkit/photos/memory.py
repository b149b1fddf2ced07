"""Images that are given in memory: encoded bytes, Pillow's images, arrays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from faceqan_toolkit.errors import SettingsError, UnreadablePhoto
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.text import first_line, path_text
from faceqan_toolkit.types import FileState, PhotoSource, Pixels

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any]"
"""A path, an encoded image, a Pillow image, or an array.

Arrays are uint8 and RGB: (H, W, 3), or (H, W) grey, or (H, W, 4) with transparency, which is put
over white. OpenCV's arrays are BGR: give `image[..., ::-1]`.
"""


@dataclass(frozen=True, eq=False)
class EncodedBytes:
    """An encoded image, see `types.Content`."""

    data: bytes

    def state(self) -> FileState:
        """Return the size; there is no time."""
        return FileState(len(self.data), 0)

    def read(self) -> tuple[bytes, FileState]:
        """Return the bytes."""
        return self.data, self.state()


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A Pillow image or (H, W, 3) uint8 RGB pixels, which need no decoder; see `types.Content`."""

    image: Image.Image | Pixels

    def state(self) -> FileState:
        """Return the size of its samples in bytes; it has no time."""
        return FileState(len(self.read()[0]), 0)

    def read(self) -> tuple[bytes, FileState]:
        """Return its samples by rows; raise UnreadablePhoto if Pillow cannot decode them."""
        try:
            data = self.image.tobytes()
        except Exception as error:  # Pillow decodes a file when its pixels are first used
            raise UnreadablePhoto(f"damaged: {first_line(error)}") from error
        return data, FileState(len(data), 0)


def as_source(image: ImageLike, name: str = "image") -> PhotoSource:
    """Return an image as the pipeline takes it; its record's `path` is `name` if it has no file.

    Raises:
        SettingsError: it is something else, for instance a list, a tensor or a float array.
    """
    if isinstance(image, str | os.PathLike):
        file = Path(os.path.abspath(image))  # noqa: PTH100 - links stay as they are
        return PhotoSource(path_text(file.parent), path_text(file.name), LocalFile(file))
    if isinstance(image, bytes | bytearray | memoryview):
        return PhotoSource("", name, EncodedBytes(bytes(image)))
    if isinstance(image, Image.Image):
        file_name = getattr(image, "filename", "")
        known = isinstance(file_name, str) and file_name
        return PhotoSource("", path_text(file_name) if known else name, DecodedImage(image))
    if isinstance(image, np.ndarray):
        return PhotoSource("", name, DecodedImage(_checked(image)))
    raise SettingsError(
        f"an image is a path, bytes, a PIL image or a uint8 RGB array, not a "
        f"{type(image).__module__}.{type(image).__name__}; assess_many takes several images"
    )


def _checked(array: np.ndarray[Any, Any]) -> Image.Image | Pixels:
    """Return an array as RGB pixels, or as a Pillow image if it has other channels."""
    shape = array.shape
    if array.dtype != np.uint8:
        raise SettingsError(
            f"an image array is uint8 with values 0..255, this one is {array.dtype}; "
            "values in 0..1 become uint8 by (image * 255).round().astype('uint8')"
        )
    if len(shape) == 4:
        raise SettingsError(
            f"one image is wanted, this array of shape {shape} holds {shape[0]}: give them to "
            "assess_many, or one of them"
        )
    if len(shape) in (2, 3) and shape[2:] in ((), (1,), (4,)):
        return Image.fromarray(array[:, :, 0] if shape[2:] == (1,) else array)
    if len(shape) == 3 and shape[2] == 3:
        return np.ascontiguousarray(array)
    raise SettingsError(
        f"an image array is (H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA, this one is {shape}"
    )
