"""What a run is asked to do, and which of it decides its scores."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.methods import METHODS

ALGORITHM_VERSION = 2
"""Raised whenever the same settings give a crop another score than before."""

DETECTION_VERSION = 2
"""Raised whenever the same settings find or choose other faces than before. Runs of version 0.1 do
not record it."""

TASKS: Mapping[str, tuple[str, ...]] = {
    "align-and-score": ("detection", "alignment", "quality"),
    "detect": ("detection",),
    "align": ("detection", "alignment", "template"),
    "score": ("quality",),
}
"""The stages each task goes through; where a model scores, the template is the model's."""

FACE_POLICIES = ("largest", "all", "central", "confident")
DETECTORS: Mapping[str, Mapping[str, float]] = {
    "mtcnn": {"min_confidence": 0.9, "max_side": 1600},
    "yunet": {"min_confidence": 0.7, "max_side": 960},
}
"""What each detector takes where nothing else is asked for."""
CLAMPS = ("published", "valid")
EPS_MODES = ("absolute", "contrast")
TEMPLATES = ("arcface", "box")
CROP_SIZES = range(16, 1025)
"""What the side of an aligned crop may measure, pixels."""
ENGINES = ("local", "ray")
BACKENDS = ("auto", "torch", "openvino", "compile")
PRECISIONS = ("float32", "tf32")
"""Arithmetics whose scores rank faces as float32's do, see docs/speed.md."""
PRESETS: Mapping[str, int] = {"exact": 10, "fast": 2, "instant": 10}
"""Noisy copies each preset takes; "exact" is the paper's, "instant" predicts what it measures."""


def _stage(stage: str, default: Any) -> Any:
    """Return a field that matters to the scores of every run with that stage."""
    return field(default=default, metadata={"stage": stage})


def is_model_name(model: str) -> bool:
    """Tell a model's name from a path, which has a dot or a slash, and from module:factory."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", model) is not None


@dataclass(frozen=True)
class ModelOptions:
    """What the tensors of a weights file cannot tell; None leaves it to the family's default.

    Attributes:
        channels: order the network wants, "RGB" or "BGR".
        mean, std: subtracted from and divided into pixels in 0..255.
        eps: of every batch norm.

    Raises:
        SettingsError: a value that makes no sense.
    """

    channels: str | None = None
    mean: float | None = None
    std: float | None = None
    eps: float | None = None

    def __post_init__(self) -> None:
        _check(self.channels in (None, "RGB", "BGR"), "channels", self.channels, "RGB or BGR")
        if self.mean is not None:
            _check(math.isfinite(self.mean), "pixel_mean", self.mean, "finite")
        if self.std is not None:
            _check(self.std > 0 and math.isfinite(self.std), "pixel_std", self.std, "above 0")
        if self.eps is not None:
            _check(0 < self.eps < 1, "norm_eps", self.eps, "between 0 and 1")

    @property
    def given(self) -> tuple[str, ...]:
        """The command line's names of those that are given."""
        names = {"channels": self.channels, "pixel-mean": self.mean, "pixel-std": self.std,
                 "norm-eps": self.eps}  # fmt: skip
        return tuple(name for name, value in names.items() if value is not None)


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen for a run; the defaults are the tool's.

    Attributes:
        task: one of `TASKS`.
        faces: which faces of a photo count, one of `FACE_POLICIES`; sizes are of the detector's
            box.
        detector: one of `DETECTORS`.
        min_face: shortest side of a face's box, pixels of the photo.
        min_confidence: of the detector, in [0, 1]; None means the detector's own.
        max_side: photos are reduced to this longer side, pixels, before detection, and huge ones
            searched in tiles besides; 0 searches photos as they are, None means the detector's own.
        rotate: also look for faces in the photo turned by 90, 180 and 270 degrees, unless an
            upright one is beyond doubt.
        one_based: for "mtcnn", keep its coordinates as facenet-pytorch gives them: about one pixel
            right of and below the face, as if the first pixel had number one, and stretched
            where its windows cross the photo's edge.
        landmarks: CSV file of faces to use in place of detection.
        antialias: average the photo's pixels where a face is shrunk more than twice.
        template, crop_size: of the crops that "align" writes, see `alignment.Template`.
        model: recognition model: a name, a weights file, or "package.module:factory".
        method: of quality, one of `methods.METHODS`; other methods than FaceQAN take few of the
            settings below.
        channels, pixel_mean, pixel_std, norm_eps: what the model's weights file does not tell,
            see `ModelOptions`.
        preset: one of `PRESETS`; "fast" and "instant" trade agreement for speed.
        eps, eps_mode, steps, copies, exponent, seed, clamp, precision: of FaceQAN, see
            `quality.faceqan.FaceQAN`. Given as 0, `copies` becomes the preset's number; others are
            for "exact" alone. "instant" takes none of them.
        engine: one of `ENGINES`: who runs the workers.
        ray_address: of a Ray cluster, for engine "ray"; None means one made for this run on this
            machine.
        max_pixels: photos with more pixels are not decoded.
        photo_timeout: seconds that decoding a photo and finding its faces may take; 0 sets no
            limit. Worker processes keep it; `Pipeline` by itself does not.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        backend: one of `BACKENDS`, see `quality.faceqan.FaceQAN`.
        workers: processes that work side by side, each on a core or a GPU; None means as many as
            are worth it.
        keep_crops: write the aligned crops to the run folder.
        hints: measure what may be wrong with each face and say it in words, beside the score, which
            does not change.

    Raises:
        SettingsError: a value that makes no sense; the message says which and why.
    """

    task: str = "align-and-score"
    faces: str = _stage("detection", "largest")
    detector: str = _stage("detection", "mtcnn")
    min_face: int = _stage("detection", 20)
    min_confidence: float = _stage("detection", None)
    max_side: int = _stage("detection", None)
    rotate: bool = _stage("detection", False)
    one_based: bool = _stage("detection", False)
    landmarks: Path | None = field(default=None, metadata={"stage": "detection"})
    antialias: bool = _stage("alignment", True)
    template: str = _stage("template", "arcface")
    crop_size: int = _stage("template", 112)
    model: str = _stage("quality", "sface")
    channels: str | None = _stage("quality", None)
    pixel_mean: float | None = _stage("quality", None)
    pixel_std: float | None = _stage("quality", None)
    norm_eps: float | None = _stage("quality", None)
    method: str = _stage("quality", "faceqan")
    eps: float = _stage("quality", 0.001)
    eps_mode: str = _stage("quality", "absolute")
    steps: int = _stage("quality", 5)
    preset: str = _stage("quality", "exact")
    copies: int = _stage("quality", 0)
    exponent: float = _stage("quality", 5.0)
    seed: int = _stage("quality", 0)
    clamp: str = _stage("quality", "published")
    precision: str = _stage("quality", "float32")
    max_pixels: int = 200_000_000
    photo_timeout: float = 300.0
    device: str = "auto"
    backend: str = "auto"
    workers: int | None = None
    engine: str = "local"
    ray_address: str | None = None
    keep_crops: bool = True
    hints: bool = True

    def __post_init__(self) -> None:
        _check_choice("task", self.task, TASKS)
        self._check_method()
        self._check_preset()
        self._check_detection()
        check_crops(self.template, self.crop_size)
        _ = self.model_options
        self._check_work()
        check_attack(
            self.eps,
            self.steps,
            self.copies,
            self.exponent,
            self.seed,
            self.clamp,
            self.eps_mode,
            self.backend,
            self.precision,
        )

    def _check_method(self) -> None:
        """Refuse a method nobody knows, and settings it would ignore."""
        _check_choice("method", self.method, METHODS)
        for name in METHODS["faceqan"]:
            value, own = getattr(self, name), type(self).__dataclass_fields__[name].default
            # a run tells the number that 0 became
            same = value == own or (name == "copies" and value == PRESETS["exact"])
            if name not in METHODS[self.method] and not same:
                expected = f"left out: method {self.method} would ignore it"
                _check(False, name, value, expected)

    def _check_preset(self) -> None:
        """Take the preset's number of copies; refuse what it would ignore."""
        _check_choice("preset", self.preset, PRESETS)
        own = PRESETS[self.preset]
        if self.preset != "exact":
            expected = f"{own} for preset {self.preset}"
            _check(self.copies in (0, own), "copies", self.copies, expected)
        object.__setattr__(self, "copies", self.copies or own)
        self._check_instant()

    def _check_instant(self) -> None:
        """Refuse the settings that preset "instant" would ignore."""
        if self.preset == "instant":
            for name in ("eps", "eps_mode", "steps", "exponent", "seed", "clamp", "precision"):
                own = type(self).__dataclass_fields__[name].default
                expected = f"{own} for preset instant, which predicts the default scores"
                _check(getattr(self, name) == own, name, getattr(self, name), expected)
            expected = "auto for preset instant: there is no attack"
            _check(self.backend == "auto", "backend", self.backend, expected)

    def _check_detection(self) -> None:
        """Take what the detector takes where nothing is asked for; refuse what it would ignore."""
        _check_choice("detector", self.detector, DETECTORS)
        for name, value in DETECTORS[self.detector].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.detector != "mtcnn":
            _check(not self.one_based, "one_based", True, "left out: it is MTCNN's alone")
            expected = "used without another detector"
            _check(self.landmarks is None, "landmarks", self.landmarks, expected)
        _check_choice("faces", self.faces, FACE_POLICIES)
        _check(self.min_face >= 1, "min_face", self.min_face, "at least 1 pixel")
        _check(0 <= self.min_confidence <= 1, "min_confidence", self.min_confidence, "in [0, 1]")
        expected = "at least 100 pixels, or 0 for the photo's own size"
        _check(self.max_side == 0 or self.max_side >= 100, "max_side", self.max_side, expected)

    def _check_work(self) -> None:
        """Refuse what says nothing of how the work is done."""
        _check(self.workers is None or self.workers >= 1, "workers", self.workers, "at least 1")
        _check_choice("engine", self.engine, ENGINES)
        on_ray = self.ray_address is None or self.engine == "ray"
        _check(on_ray, "ray_address", self.ray_address, "used with --engine ray")
        _check(self.max_pixels >= 1, "max_pixels", self.max_pixels, "at least 1")
        expected = "0 or more seconds; 0 sets no limit"
        _check(0 <= self.photo_timeout < math.inf, "photo_timeout", self.photo_timeout, expected)

    @property
    def model_options(self) -> ModelOptions:
        """What is said of the model besides its weights."""
        return ModelOptions(self.channels, self.pixel_mean, self.pixel_std, self.norm_eps)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages its task goes through."""
        return TASKS[self.task]

    def identity(self, weights_sha256: str) -> dict[str, Any]:
        """Return all that can change a record of such a run, and nothing else."""
        identity: dict[str, Any] = {"algorithm": ALGORITHM_VERSION, "task": self.task}
        if "detection" in self.stages:
            identity["detection"] = DETECTION_VERSION
        for item in fields(self):
            if item.metadata.get("stage") in self.stages:
                identity[item.name] = getattr(self, item.name)
        if "quality" in self.stages:
            # a file goes by its content, whatever it is called
            identity["model"] = self.model if is_model_name(self.model) else "not by name"
            identity["weights_sha256"] = weights_sha256
        if "landmarks" in identity:
            # which landmarks a photo had is kept with its record, so the file may grow
            identity["landmarks"] = "detector" if self.landmarks is None else "file"
        return identity

    def fingerprint(self, weights_sha256: str) -> str:
        """Return the identity as a short text, see `fingerprint_of`."""
        return fingerprint_of(self.identity(weights_sha256))

    def as_dict(self) -> dict[str, Any]:
        """Return every setting, as JSON can hold it."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """Return a run's identity as a short text: equal if and only if scores may be compared."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


PUBLISHED: Mapping[str, Any] = {
    "detector": "mtcnn",
    "max_side": 0,
    "one_based": True,
    "antialias": False,
    "preset": "exact",
    "eps": 0.001,
    "eps_mode": "absolute",
    "steps": 5,
    "copies": 10,
    "exponent": 5.0,
    "clamp": "published",
}
"""The choices of the published code, and plain MTCNN and bilinear warping before it."""

MOST = 1000
"""Steps and copies; the paper takes 5 and 10."""


def check_attack(
    eps: float,
    steps: int,
    copies: int,
    exponent: float,
    seed: int,
    clamp: str,
    eps_mode: str,
    backend: str,
    precision: str,
) -> None:
    """Raise SettingsError if an option of FaceQAN is out of its range."""
    _check(0 < eps < 1, "eps", eps, "between 0 and 1, as pixel values are in [0, 1]")
    _check(1 <= steps <= MOST, "steps", steps, f"1 to {MOST}")
    _check(1 <= copies <= MOST, "copies", copies, f"1 to {MOST}")
    _check(exponent > 0 and math.isfinite(exponent), "exponent", exponent, "above 0 and finite")
    _check(0 <= seed < 2**63, "seed", seed, "0 or a positive integer below 2**63")
    _check_choice("clamp", clamp, CLAMPS)
    _check_choice("eps_mode", eps_mode, EPS_MODES)
    _check_choice("precision", precision, PRECISIONS)
    _check_choice("backend", backend, BACKENDS)


def check_crops(template: str, size: int, size_name: str = "crop_size") -> None:
    """Raise SettingsError if aligned crops cannot be cut so.

    Args:
        template: see `alignment.Template`.
        size: side of the crop, pixels.
        size_name: what a message calls it.
    """
    _check_choice("template", template, TEMPLATES)
    expected = f"{CROP_SIZES[0]} to {CROP_SIZES[-1]} pixels"
    _check(size in CROP_SIZES, size_name, size, expected)


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    _check(value in choices, name, value, f"one of {', '.join(choices)}")


def _check(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise SettingsError(f"{name.replace('_', '-')} is {value}; it must be {expected}")


AS_TRAINED = ModelOptions()
"""Nothing said: the file's own, or the family's."""
