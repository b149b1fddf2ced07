"""Photos to records. The only place that turns what goes wrong with a photo into a record."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sized
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from faceqan_toolkit import errors
from faceqan_toolkit.alignment import ARCFACE, Cutter, Template, align, is_aligned, resize_crop
from faceqan_toolkit.detection.base import select_faces
from faceqan_toolkit.errors import PhotoError, RunError, SettingsError
from faceqan_toolkit.events import Advanced, Listener, counting, listener
from faceqan_toolkit.files import is_inside
from faceqan_toolkit.geometry import find_mistake
from faceqan_toolkit.hardware import one_thread
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.photos.memory import ImageLike, as_source
from faceqan_toolkit.quality.measures import NO_FACE, Measures, find_hints, measure
from faceqan_toolkit.quality.scale import Scale, builtin_scale
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.text import LIKE_A_CROP, RESIZED, crop_path, printable, reason_of
from faceqan_toolkit.threads import prefetch
from faceqan_toolkit.types import (
    BOX_COLUMNS,
    LANDMARK_COLUMNS,
    AlignedCrop,
    Face,
    FileState,
    Photo,
    PhotoSource,
    Pixels,
    Record,
    Score,
)

if TYPE_CHECKING:
    from faceqan_toolkit.detection.base import Detector
    from faceqan_toolkit.detection.landmarks_file import LandmarksFile
    from faceqan_toolkit.quality.base import QualityEstimator

PREPARED_AHEAD = 8
"""Photos that may wait, decoded and aligned, for their scores."""
SCORE_COLUMNS = ("quality", "quality_error", "similarity_mean", "similarity_std", "symmetry",
                 "embedding_norm")  # fmt: skip
"""Columns of records that a `Score` holds."""


class Crashed(PhotoError, status="crashed"):
    """An unforeseen error; worth a bug report."""


@dataclass(frozen=True)
class Cut:
    """A face with its crop, if there is one.

    Attributes:
        index: of the face in its photo, by size.
        face: None if the photo is a crop itself.
        crop: (S, S, 3) uint8, RGB; None if none was wanted, or none could be made.
        note: remark for the record.
        measures: of the crop, if hints are wanted.
        failure: why there is no crop.
    """

    index: int
    face: Face | None
    crop: Pixels | None = None
    note: str = ""
    measures: Measures | None = None
    failure: PhotoError | None = None


@dataclass(frozen=True)
class Prepared:
    """A photo with its faces and crops, ready to be scored, or why there are none."""

    source: PhotoSource
    state: FileState | None = None
    landmarks_id: str = ""
    cuts: tuple[Cut, ...] = ()
    failure: PhotoError | None = None
    note: str = ""


class Pipeline:
    """The stages of a task, loaded once, for any number of photos.

    Several threads may use one pipeline at once: they decode, detect and align side by side, and
    score one after the other. No process is started, and nothing is written without
    `crops_folder`. On a CPU it computes with one thread, so scores equal those of `run` to the
    last bit.

    Args:
        settings: what to do.
        crops_folder: where to write aligned crops; None does not write them.
        scoring: False if another pipeline scores the photos that this one prepares.

    Attributes:
        seconds: spent so far by stage: decode, detect, align, measure, score, write.

    Raises:
        SettingsError: see `Settings`, `LandmarksFile` and `FaceQAN`.
        WeightsError: the recognition model cannot be loaded.
    """

    def __init__(
        self, settings: Settings | None = None, *, crops_folder: Path | None = None,
        scoring: bool = True,
    ) -> None:  # fmt: skip
        self.settings = settings = settings or Settings()
        self.crops_folder = crops_folder
        self.seconds: dict[str, float] = defaultdict(float)
        self._adding, self._scoring = threading.Lock(), threading.Lock()
        self._scale: Scale | None = None
        self.scorer: QualityEstimator | None = None
        self._lengths_tell = True
        self.landmarks: LandmarksFile | None = None
        self.detector: Detector | None = None
        self._decode_at_least = 0
        self._aligning = "alignment" in settings.stages
        self._measuring = settings.work.hints and "quality" in settings.stages
        alignment = settings.alignment
        template, self.crop_size = alignment.template, alignment.crop_size
        if "quality" in settings.stages:
            from faceqan_toolkit.models.load import find_model

            embedder = find_model(settings.model.name, settings.model.options).load()
            template, self.crop_size = embedder.template, embedder.input_size
            if scoring:
                from faceqan_toolkit.models.base import has_equal_lengths
                from faceqan_toolkit.quality.registry import make_estimator

                self.scorer = make_estimator(settings, embedder)
                self._scale = builtin_scale(settings, embedder.sha256)
                self._lengths_tell = not has_equal_lengths(embedder)
        if self._aligning:
            self.template = Template(template, self.crop_size)
        if "detection" not in settings.stages:
            return
        if settings.landmarks is not None:
            from faceqan_toolkit.detection.landmarks_file import LandmarksFile

            self.detector = self.landmarks = LandmarksFile(settings.landmarks, settings)
        else:
            from faceqan_toolkit.detection import make_detector

            self.detector = make_detector(settings)
            # plain sampling takes single pixels of the full photo, whatever a crop's size
            if alignment.antialias or not self._aligning:
                self._decode_at_least = settings.max_side

    def run(self, inputs: Iterable[str | os.PathLike[str]]) -> Iterator[Record]:
        """Yield the records of photos, in order, while the next ones are being prepared.

        For `inputs`, see `photos.find.find_photos`; SettingsError if one does not exist.
        """
        for records in self.source_records(find_photos(inputs)):
            yield from records

    def assess(self, image: ImageLike, *, name: str = "image") -> list[Record]:
        """Return the record of each face in an image, or one record with the reason.

        Args:
            image: a path, encoded bytes, a Pillow image, or a uint8 RGB array (H, W, 3); see
                `ImageLike`.
            name: `path` of the records of an image without a file.

        Raises:
            SettingsError: what is given is no image. A file that cannot be read is a record.
        """
        with one_thread:
            (records,) = self._finish([self.prepare(as_source(image, name))])
        return records

    def assess_many(
        self, images: Iterable[ImageLike], *, progress: bool | Listener = False
    ) -> Generator[list[Record]]:
        """Yield the records of each image, in order, as `assess` returns them.

        Faces are scored in blocks, which is faster on a GPU, and the next images are prepared
        meanwhile.

        Args:
            images: any mixture of what `assess` takes. Images without a file are called
                "image 0", "image 1", ...
            progress: True shows a bar on standard error; a function gets `events`.

        Raises:
            SettingsError: what is given is no sequence of images.
        """
        if isinstance(images, str | bytes | os.PathLike | Image.Image | np.ndarray):
            raise SettingsError(
                f"assess_many takes a list of images, not one {type(images).__name__}; "
                "assess takes one"
            )
        tell = listener(progress)
        sources = (as_source(image, f"image {index}") for index, image in enumerate(images))
        counted = counting(tell, len(images), "image") if isinstance(images, Sized) else None
        with counted or nullcontext(), one_thread:
            for records in self.source_records(sources):
                tell(Advanced(1, records))
                yield records

    def detect(self, image: ImageLike) -> list[Face]:
        """Return all faces that the settings accept, largest first; none is an empty list.

        Raises:
            PhotoError: the image cannot be read.
            SettingsError: what is given is no image, or the settings detect nothing.
        """
        if self.detector is None:
            raise SettingsError(f"task {self.settings.task} detects no faces")
        with one_thread:
            try:
                return self.detector.detect(self._decode(as_source(image)))
            except (errors.NoFace, errors.FaceTooSmall, errors.NoLandmarks):
                return []

    def align(self, image: ImageLike, face: Face | None = None) -> AlignedCrop:
        """Return a face cut out as the recognition model wants it.

        Args:
            image: see `assess`.
            face: of `detect`; None takes the one that the settings choose.

        Raises:
            PhotoError: the image cannot be read, has no such face, or the face cannot be aligned.
            SettingsError: what is given is no image, or the settings align nothing.
        """
        if self.detector is None:
            raise SettingsError(f"task {self.settings.task} aligns no faces")
        with one_thread:
            photo = self._decode(as_source(image))
            face = face or self._choose(photo)[0][1]
            _check_landmarks(face, photo)
            return self._cutter(photo).cut(face)

    def source_records(self, sources: Iterable[PhotoSource]) -> Generator[list[Record]]:
        """Yield each photo's records, in order, while the next ones are being prepared."""
        # closed at once: a process that ends while the thread is at work aborts
        with closing(self.prepare_ahead(sources)) as prepared:
            yield from self.records(prepared)

    def prepare_ahead(self, sources: Iterable[PhotoSource]) -> Generator[Prepared]:
        """Yield prepared photos, in order, from a thread that works ahead of its consumer."""
        return prefetch(map(self.prepare, sources), PREPARED_AHEAD)

    def prepare(self, source: PhotoSource) -> Prepared:
        """Return a photo decoded, its faces found and aligned, or why that failed."""
        landmarks_id = self.landmarks.identify(source) if self.landmarks else ""
        state = None
        try:
            photo = self._decode(source)
            state = photo.state
            return Prepared(source, state, landmarks_id, tuple(self._cut(photo)), note=photo.note)
        except PhotoError as error:
            failure = error
        except errors.MissingDependency as error:
            failure = Crashed(str(error))
        except Exception as error:  # noqa: BLE001 - no photo may end a run of a million others
            failure = Crashed(f"{type(error).__name__}: {error}")
        state = state or failure.state or _state(source)
        return Prepared(source, state, landmarks_id, failure=failure)

    def _decode(self, source: PhotoSource) -> Photo:
        max_pixels = self.settings.work.max_pixels
        with self._timed("decode"):
            return decode(source, max_pixels=max_pixels, at_least=self._decode_at_least)

    def _cut(self, photo: Photo) -> Iterator[Cut]:
        """Yield the photo's faces, cut out as far as the task goes."""
        if self.detector is None:
            crop = resize_crop(photo.pixels, self.crop_size)
            width, height = photo.size
            note = "" if crop is photo.pixels else f"{RESIZED} {width}x{height}"
            yield Cut(0, None, crop, note, self._measure(crop, photo, None))
            return
        cutter = self._cutter(photo) if self._aligning else None
        for index, face in self._choose(photo):
            try:
                _check_landmarks(face, photo)
                yield self._cut_face(index, face, cutter) if cutter else Cut(index, face)
            except PhotoError as error:
                yield Cut(index, face, failure=error)

    def _choose(self, photo: Photo) -> list[tuple[int, Face]]:
        """Return the faces that the settings choose, with their indices by size; at least one."""
        assert self.detector is not None
        doubtful = partial(_may_be_no_face, photo)
        with self._timed("detect"):
            faces = self.detector.detect(photo)
            return select_faces(faces, self.settings.detection.faces, photo.size, doubtful=doubtful)

    def _cutter(self, photo: Photo) -> Cutter:
        return Cutter(photo, self.template, self.settings.alignment.antialias, self._timed)

    def _cut_face(self, index: int, face: Face, cutter: Cutter) -> Cut:
        crop = cutter.cut(face)
        note = LIKE_A_CROP if is_aligned(face, cutter.photo.size) else ""
        measures = None
        if self._measuring:
            arcface = crop if self.template == ARCFACE else cutter.cut(face, ARCFACE)
            measures = self._measure(arcface.pixels, cutter.source(face), arcface)
        return Cut(index, face, crop.pixels, note, measures)

    def _measure(self, crop: Pixels, photo: Photo, aligned: AlignedCrop | None) -> Measures | None:
        """Return the measures that hints are made of, if hints are wanted."""
        if not self._measuring:
            return None
        with self._timed("measure"):
            return measure(crop, photo, aligned)

    def records(self, prepared: Iterable[Prepared | None]) -> Iterator[list[Record]]:
        """Yield the records of each prepared photo, in order, scored in blocks.

        None among the photos has those before it scored at once, as the next one may take long.
        """
        waiting: list[Prepared] = []
        block = self.scorer.block_faces if self.scorer else 1
        for photo in prepared:
            if photo is not None:
                waiting.append(photo)
            faces = sum(len(item.cuts) for item in waiting)
            if photo is None or faces >= block or len(waiting) > 4 * block:
                yield from self._finish(waiting)
                waiting = []
        yield from self._finish(waiting)

    def _finish(self, waiting: list[Prepared]) -> Iterator[list[Record]]:
        crops = [cut.crop for item in waiting for cut in item.cuts if cut.crop is not None]
        scores: Iterator[Score | None] = iter([None] * len(crops))
        if self.scorer and crops:
            with self._scoring, self._timed("score"):
                scores = iter(self.scorer.score(crops))
        for item in waiting:
            if item.failure:
                yield [_record(item, failure=item.failure)]
            else:
                yield [
                    self.face_record(item, cut, next(scores) if cut.crop is not None else None)
                    for cut in item.cuts
                ]

    def face_record(self, photo: Prepared, cut: Cut, score: Score | None) -> Record:
        """Return the record of a face, writing its crop if there is a folder for it."""
        failure = cut.failure
        values: dict[str, Any] = {}
        if score is not None and self.scorer is not None:
            if math.isfinite(score.quality):
                values = {name: getattr(score, name) for name in SCORE_COLUMNS}
                values["quality_100"] = self._scale.of(score.quality) if self._scale else None
                if not self._lengths_tell:
                    values["embedding_norm"] = None
            else:
                failure = errors.Unscorable(
                    f"{self.scorer.embedder.name} gives no usable embedding"
                )
        if cut.crop is not None and cut.face is not None and self.crops_folder is not None:
            values["crop"] = self._write_crop(photo.source.path, cut.index, cut.crop)
        if self.scorer:
            quality = self.settings.quality
            values |= {"model": self.scorer.embedder.name, "method": quality.method}
            values["preset"] = quality.preset if quality.method == "faceqan" else ""
        if cut.measures is not None:
            values |= asdict(cut.measures)
            known = values | {"confidence": cut.face.confidence if cut.face else None}
            values["hints"] = "; ".join(find_hints(known, values.get("model", "")))
        return _record(photo, cut, failure=failure, **values)

    def _write_crop(self, path: str, index: int, crop: Pixels) -> str:
        """Write a crop and return its path relative to the run folder."""
        assert self.crops_folder is not None
        name = crop_path(path, index)
        target = self.crops_folder / name
        with self._timed("write"):
            _, png = cv2.imencode(".png", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if not is_inside(self.crops_folder, target.parent):
                    raise RunError(f"cannot write {target}: a link leads out of the run folder")
                target.unlink(missing_ok=True)  # it may be linked to, or be a link itself
                target.write_bytes(png.tobytes())
            except OSError as error:
                raise RunError(
                    f"cannot write {target}: {reason_of(error)}; what was recorded before is safe, "
                    "the same command goes on from there"
                ) from error
        return f"{self.crops_folder.name}/{name}"

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._adding:
                self.seconds[stage] += time.perf_counter() - start


def _may_be_no_face(photo: Photo, face: Face) -> bool:
    """Tell whether a detection looks so little like a face that another one is preferred."""
    try:
        crop = align(
            photo.pixels, face, antialias=True, reduction=photo.reduction, photo_size=photo.size
        )
    except PhotoError:
        return True
    row = asdict(measure(crop.pixels, photo, crop)) | {"confidence": face.confidence}
    return NO_FACE in find_hints(row)


def _check_landmarks(face: Face, photo: Photo) -> None:
    """Raise Unalignable if a face's landmarks are not those of a face in this photo."""
    if mistake := find_mistake(face.landmarks, face.box, photo.size):
        raise errors.Unalignable(mistake.reason)


def _state(source: PhotoSource) -> FileState | None:
    """Return size and time of a file that could not be read, as far as they can be known."""
    try:
        return source.content.state()
    except PhotoError:
        return None


def failed_record(source: PhotoSource, failure: PhotoError) -> Record:
    """Return the record of a photo of which only the failure is known."""
    # asking a disk that does not answer would block
    state = None if isinstance(failure, errors.TimedOut) else _state(source)
    return _record(Prepared(source, state), failure=failure)


def _record(
    photo: Prepared, cut: Cut | None = None, *, failure: PhotoError | None = None, **values: Any
) -> Record:
    if cut is not None and cut.face is not None:
        face = cut.face
        values |= dict(zip(BOX_COLUMNS, face.box.tolist(), strict=True))
        values |= dict(zip(LANDMARK_COLUMNS, face.landmarks.ravel().tolist(), strict=True))
        values |= {"face_px": face.size, "confidence": face.confidence, "rotation": face.rotation}
    notes = [cut.note if cut else "", photo.note]
    reason = failure.reason if failure else "; ".join(filter(None, notes))
    state = photo.state
    if state:
        values |= {"file_size": state.size, "mtime_ns": state.mtime_ns, "sha256": state.sha256}
    return Record(
        path=photo.source.path, root=photo.source.root, face=None if cut is None else cut.index,
        status=failure.status if failure else "ok",
        # an unforeseen error may quote anything from a file
        reason=printable(reason),
        landmarks_id=photo.landmarks_id, attempt=photo.source.attempt, **values,
    )  # fmt: skip
