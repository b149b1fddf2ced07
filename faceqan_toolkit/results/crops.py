"""What a run's rows were made with: crops, photos, and the recognition model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from faceqan_toolkit.errors import PhotoError, RunError
from faceqan_toolkit.files import is_file
from faceqan_toolkit.models.load import FoundModel, find_model
from faceqan_toolkit.models.registry import is_factory
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import locate_recorded
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.runs.folder import RunInfo, crop_file
from faceqan_toolkit.settings import WorkSettings
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS, Face, Photo, PhotoSource, Pixels

MAX_PIXELS: int = WorkSettings.max_pixels
"""Largest photo to decode, pixels, whatever the run's own limit was."""
CROP_PIXELS = 4096**2
"""Largest crop to decode, pixels."""

Row = Mapping[str, Any]


class RunCrops:
    """Crops and photos of a run's rows.

    A crop that was not kept, or was deleted, is cut again at the recorded landmarks, without
    detection or a landmarks file.

    Args:
        run: any run; in a run of `score` the photos are the crops.
        cut: cut missing crops again.
        fetch: also read photos from URLs.
    """

    def __init__(self, run: RunInfo, *, cut: bool = True, fetch: bool = False) -> None:
        self.folder, self.cut, self.fetch = run.folder, cut, fetch
        self.settings: Mapping[str, Any] = run.content["settings"]
        self.model: Mapping[str, Any] = run.content.get("model") or {}
        # the run folder is untrusted, so it cannot raise the limit
        self.max_pixels = min(int(self.settings.get("max_pixels") or MAX_PIXELS), MAX_PIXELS)
        self.photos_are_crops = run.task == "score"

    def crop(self, row: Row) -> Pixels:
        """Return a face's crop, (S, S, 3) uint8 RGB, given its row with `sha256`.

        PhotoError if there is none and it cannot be cut again.
        """
        if row["face"] is None:
            raise PhotoError("no face")
        if self.photos_are_crops:
            return self.photo(row).pixels
        name = row.get("crop") or ""
        if file := crop_file(self.folder, name):
            with suppress(PhotoError):  # deleted since
                source = PhotoSource("", name, LocalFile(file))
                return decode(source, max_pixels=CROP_PIXELS).pixels
        if not self.cut or any(row.get(column) is None for column in LANDMARK_COLUMNS):
            raise PhotoError("not kept")
        return self._cut(row)

    def photo(self, row: Row, at_least: int = 0) -> Photo:
        """Return a row's photo; `at_least` is that of `photos.decode.decode`.

        PhotoError if the photo is missing, cannot be read, or has changed.
        """
        source = locate_recorded(row["root"], row["path"], fetch=self.fetch)
        photo = decode(source, max_pixels=self.max_pixels, at_least=at_least)
        # an untrusted record can name any photo of this machine, but not know its checksum
        if row["sha256"] != photo.state.sha256:
            raise PhotoError("changed since")
        return photo

    def _cut(self, row: Row) -> Pixels:
        from faceqan_toolkit.alignment import Cutter, Template

        landmarks = np.array([row[column] for column in LANDMARK_COLUMNS]).reshape(5, 2)
        box = np.array([row[column] for column in BOX_COLUMNS], float)
        face = Face(box, landmarks, rotation=row.get("rotation") or 0)
        template = Template(
            self.model.get("template") or self.settings.get("template") or "arcface",
            int(self.model.get("input_size") or self.settings.get("crop_size") or 112),
        )
        antialias = bool(self.settings.get("antialias", True))
        # as the pipeline: full size for plain sampling and for landmarks from a file
        reduced = antialias and not self.settings.get("landmarks")
        photo = self.photo(row, int(self.settings.get("max_side") or 0) if reduced else 0)
        return Cutter(photo, template, antialias=antialias).cut(face).pixels


def model_of(run: RunInfo, named: str | None = None) -> FoundModel:
    """Return the recognition model that scored a run.

    Run folders are untrusted: a model that is Python code is loaded only if the user names it too.

    Args:
        run: a run with scores.
        named: the model that the user gave; None if they gave none.

    Raises:
        RunError: the model is code that the user has not named, its weights have changed, or the
            user named another model.
        WeightsError: the weights cannot be used, see `find_model`.
    """
    settings = run.settings
    model = settings.model.name
    if named is not None and named != model:
        raise RunError(f"{run.folder} was made with `model` {model}, not {named}")
    if named is None and is_factory(model) and not is_file(Path(model)):
        raise RunError(
            f"{run.folder} was made with the code {model}; if you trust it, run it with "
            f"`model` {model}"
        )
    found = find_model(model, settings.model.options)
    made_with = (run.content.get("model") or {}).get("sha256")
    if made_with and made_with != found.sha256:
        raise RunError(
            f"{run.folder} was made with other weights of {model}; put those back, or score the "
            "photos into a new run"
        )
    return found
