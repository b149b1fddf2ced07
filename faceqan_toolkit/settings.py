"""Settings of a run, in five groups, and the identity that decides whether scores compare.

A group raises SettingsError for a value of a wrong type or range.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.fields import check, check_options, option, suggestion
from faceqan_toolkit.registry import DETECTORS, METHODS, Part, Registry

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

FORMATS = ("csv", "jsonl", "parquet")
"""File formats of rankings and other tables."""
WHATS = ("photos", "crops")
"""Units that `filter` decides on."""
BYS = ("best", "worst", "main")
"""Face whose score represents a photo with several faces."""
MODES = ("list", "copy", "move", "link", "symlink")
"""Actions of `filter` on kept files."""
SINKS = ("files", "webdataset", "recordio")
"""Output formats of copies."""

FACE_POLICIES = ("largest", "all", "central", "confident")
CLAMPS = ("published", "valid")
CROP_SIZES = range(16, 1025)
"""Sides of an aligned crop, pixels."""
PRESETS: Mapping[str, int] = {"exact": 10, "fast": 2, "instant": 10}
"""Noisy copies of each preset; "exact" is the paper's, "instant" predicts exact scores."""

MOST = 1000
"""Most steps and copies; the paper takes 5 and 10."""

NOT_WITH_INSTANT = (
    "eps", "eps_mode", "steps", "exponent", "seed", "clamp", "precision", "backend",
)  # fmt: skip
"""Settings that preset "instant" ignores, as it predicts scores made with their defaults."""

G = TypeVar("G", bound="_Group")


class _Group:
    """A group of settings; a frozen dataclass that raises SettingsError for invalid values."""

    stage = ""
    """Stage whose results the settings change, unless a field has its own; "" changes none."""

    def __post_init__(self) -> None:
        check_options(self)

    def changed(self: G, **changes: Any) -> G:
        """Return the group with other values and all defaults filled in.

        A value that is the default of the old detector, method or preset becomes that of the new
        one.
        """
        plain, own = type(self), self.own_defaults()
        unset = {name: getattr(plain, name) for name in own if getattr(self, name) == own[name]}
        group = replace(self, **{**unset, **changes})  # type: ignore[type-var]
        own = group.own_defaults()
        missing = {name: own[name] for name in own if getattr(group, name) == getattr(plain, name)}
        return replace(group, **missing)  # type: ignore[type-var]

    def own_defaults(self) -> dict[str, Any]:
        """Return the defaults that other settings of the group decide."""
        return {}


class _PartGroup(_Group):
    """A group with a detector or method, its options, and settings that only some of them use."""

    options: Any
    registry: ClassVar[Registry]
    optional: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        super().__post_init__()
        part = self.part
        if self.options is not None:
            right = isinstance(self.options, part.options)
            check(right, "options", repr(self.options), f"a {part.options.__name__} or None")
            check_options(self.options)
        for name in self.optional:
            value, default = getattr(self, name), getattr(type(self), name)
            same = value in (default, self.own_defaults().get(name, default))
            expected = f"left out: {part.kind} {part.name} would ignore it"
            check(name in part.uses or same, name, value, expected)

    @property
    def part(self) -> Part:
        """The detector or method."""
        return self.registry.find(getattr(self, self.registry.kind))

    def changed(self: G, **changes: Any) -> G:
        """Return the group as `_Group.changed` does; another part starts with its own options."""
        kind = self.registry.kind  # type: ignore[attr-defined]
        if changes.get(kind, getattr(self, kind)) != getattr(self, kind):
            changes = {"options": None, **changes}
        return super().changed(**changes)

    def own_defaults(self) -> dict[str, Any]:
        """Return the part's defaults, and its options' defaults."""
        return {**self.part.defaults, "options": self.part.options()}

    def option_values(self) -> dict[str, Any]:
        """Return the part's own options that differ from their defaults."""
        defaults = self.part.options()
        given = {} if self.options is None else asdict(self.options)
        return {name: v for name, v in given.items() if v != getattr(defaults, name)}


@dataclass(frozen=True)
class DetectionSettings(_PartGroup):
    """Face detection: which faces of a photo are found and used.

    `min_confidence`, `max_side` and `options` are None for the detector's defaults; `Settings`
    fills them in. Settings that the detector would ignore are refused.
    """

    faces: str = option("largest", "Which detected faces to score.", choices=FACE_POLICIES)
    detector: str = option(
        "mtcnn", "Face detector; yunet is several times as fast, its landmarks are less exact."
    )
    min_face: int = option(20, "Smallest face: shorter side of its box in the photo.", at_least=1,
                           metavar="PX")  # fmt: skip
    min_confidence: float = option(None, "Least confidence of a detection, 0 to 1.", at_least=0,
                                   at_most=1, metavar="C")  # fmt: skip
    max_side: int = option(
        None, "Reduce photos to this longer side for detection; 0 for full size.",
        at_least=0, metavar="PX",
    )  # fmt: skip
    rotate: bool = option(False, "Also search the photo turned by 90, 180 and 270 degrees.")
    one_based: bool = option(
        False, "Use facenet-pytorch's coordinates: 1 px too large, stretched at the photo's edges."
    )
    landmarks: Path | None = option(  # noqa: RUF009
        None, "Read faces from this file instead of detecting them: path, ten coordinates, "
        "confidence.", metavar="CSV",
    )  # fmt: skip
    options: Any = None

    stage = "detection"
    registry = DETECTORS
    optional = ("one_based",)

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = "at least 100 pixels, or 0 for the photo's own size"
        right = self.max_side is None or not 0 < self.max_side < 100
        check(right, "max_side", self.max_side, expected)
        right = self.landmarks is None or self.detector == DetectionSettings.detector
        check(right, "landmarks", self.landmarks, "used without another detector")


@dataclass(frozen=True)
class AlignmentSettings(_Group):
    """Aligned crops; `template` and `crop_size` are for the task "align", see `Template`."""

    antialias: bool = option(True, "Average pixels where a face is reduced more than twice.",
                             stage="alignment")  # fmt: skip
    template: str = option(
        "arcface", "Cut by InsightFace's five landmarks, or by the face's box as FaceNet.",
        choices=("arcface", "box"),
    )  # fmt: skip
    crop_size: int = option(112, "Side of the crops.", at_least=CROP_SIZES[0],
                            at_most=CROP_SIZES[-1], metavar="PX")  # fmt: skip

    stage = "template"


@dataclass(frozen=True)
class ModelOptions:
    """Preprocessing and batch-norm epsilon of a weights file; None for the network's defaults.

    Attributes:
        channels, mean, std, eps: see `channels`, `pixel_mean`, `pixel_std` and `norm_eps` of
            `ModelSettings`.

    Raises:
        SettingsError: a value of a wrong type or range.
    """

    channels: str | None = None
    mean: float | None = None
    std: float | None = None
    eps: float | None = None

    def __post_init__(self) -> None:
        ModelSettings("", *astuple(self))

    @property
    def given(self) -> tuple[str, ...]:
        """Command-line names of the options that are not None."""
        names = ("channels", "pixel-mean", "pixel-std", "norm-eps")
        return tuple(name for name, v in zip(names, astuple(self), strict=True) if v is not None)


@dataclass(frozen=True)
class ModelSettings(_Group):
    """Recognition model; the other settings are for weights files that nobody registered."""

    name: str = option(
        "sface", "Recognition model: a name (see `models list`), a weights file, or "
        "package.module:factory.", metavar="MODEL",
    )  # fmt: skip
    channels: str | None = option(None, "Colour order of the network's input.",
                                  choices=("RGB", "BGR"))  # fmt: skip
    pixel_mean: float | None = option(None, "Subtracted from pixels, 0..255.", metavar="M")
    pixel_std: float | None = option(None, "Divisor of pixels after that.", above=0, metavar="S")
    norm_eps: float | None = option(None, "Batch-norm epsilon of the checkpoint.", above=0, below=1,
                                    metavar="E")  # fmt: skip

    stage = "quality"

    @property
    def options(self) -> ModelOptions:
        """The model's preprocessing and batch-norm epsilon."""
        return ModelOptions(self.channels, self.pixel_mean, self.pixel_std, self.norm_eps)


@dataclass(frozen=True)
class QualitySettings(_PartGroup):
    """Quality method, FaceQAN's settings, and the options of other methods.

    `copies` is 0 for the preset's number and `options` None for the method's defaults; `Settings`
    fills them in. Settings that the method or the preset would ignore are refused.
    """

    method: str = option(
        "faceqan", "Quality method; presets and attack options apply to faceqan only."
    )
    eps: float = option(0.001, "Noise and step size; pixels are in 0..1.", above=0, below=1,
                        metavar="EPS")  # fmt: skip
    eps_mode: str = option(
        "absolute", "absolute is the paper's; contrast reduces eps for crops of low contrast, such "
        "as dark ones. Scores of the two do not compare.", choices=("absolute", "contrast"),
    )  # fmt: skip
    steps: int = option(5, "Attack steps at which similarity is measured.", at_least=1,
                        at_most=MOST, metavar="L")  # fmt: skip
    preset: str = option(
        "exact", "exact: the paper's; fast: 2 copies, nearly the same ranking, 4 times as fast; "
        "instant: predict the score from one forward pass.", choices=tuple(PRESETS),
    )  # fmt: skip
    copies: int = option(0, "Noisy copies of each crop; 0 for the preset's number.", at_least=0,
                         at_most=MOST, metavar="K")  # fmt: skip
    exponent: float = option(5.0, "Exponent of the score.", above=0, metavar="P")
    seed: int = option(0, "Random seed of the noise.", at_least=0, below=2**63, metavar="N")
    clamp: str = option(
        "published", "Bounds of attacked pixels: the published code's [-1, 1], or valid [0, 1].",
        choices=CLAMPS,
    )  # fmt: skip
    precision: str = option(
        "float32", "tf32: coarser products, faster on NVIDIA GPUs, nearly the same ranking.",
        choices=("float32", "tf32"),
    )  # fmt: skip
    backend: str = option(
        "auto", "Library for the attack: torch, openvino (an extra, CPU only), or compile "
        "(torch.compile). auto: openvino where it is faster, else torch.",
        choices=("auto", "torch", "openvino", "compile"), stage="",
    )  # fmt: skip
    options: Any = None

    stage = "quality"
    registry = METHODS
    optional = (*NOT_WITH_INSTANT, "preset", "copies")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset != "exact":
            own = PRESETS[self.preset]
            check(self.copies in (0, own), "copies", self.copies, f"{own} for preset {self.preset}")
        for name in NOT_WITH_INSTANT if self.preset == "instant" else ():
            value, default = getattr(self, name), getattr(QualitySettings, name)
            expected = f"{default} for preset instant, which predicts the default scores"
            check(value == default, name, value, expected)

    def own_defaults(self) -> dict[str, Any]:
        """Return the preset's number of copies and the method's defaults."""
        return {**super().own_defaults(), "copies": PRESETS[self.preset]}


@dataclass(frozen=True)
class WorkSettings(_Group):
    """How the work is done and what is kept; changes no score."""

    max_pixels: int = option(200_000_000, "Do not decode photos with more pixels.", at_least=1,
                             metavar="N")  # fmt: skip
    photo_timeout: float = option(
        300.0, "Skip a photo if decoding and detection exceed this many seconds; 0 for no limit.",
        at_least=0, metavar="SECONDS",
    )  # fmt: skip
    device: str = option("auto", "auto, cpu, cuda (all GPUs), cuda:N or mps.", metavar="DEVICE")
    workers: int | None = option(
        None, "Parallel processes, one a CPU core or GPU; auto: as many as pay off.",
        at_least=1, metavar="auto|N",
    )  # fmt: skip
    engine: str = option(
        "local", "local: processes of this machine; inline: the calling process; ray: a Ray "
        "cluster (an extra), see docs/scale.md.", choices=("local", "inline", "ray"),
    )  # fmt: skip
    ray_address: str | None = option(
        None, "Ray cluster for --engine ray, as ray.init takes it; auto finds one.",
        metavar="ADDRESS",
    )  # fmt: skip
    keep_crops: bool = option(True, "Keep the aligned crops in RUN/crops.")
    hints: bool = option(
        True, "Add hints about possible defects of each face; scores are unchanged."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        on_ray = self.ray_address is None or self.engine == "ray"
        check(on_ray, "ray_address", self.ray_address, "used with --engine ray")


AS_TRAINED = ModelOptions()
"""No options: the file's own preprocessing, or the family's."""


_GROUPS: Mapping[str, type[_Group]] = {
    "detection": DetectionSettings, "alignment": AlignmentSettings, "model": ModelSettings,
    "quality": QualitySettings, "work": WorkSettings,
}  # fmt: skip
_HOMES: Mapping[str, tuple[str, Field[Any], str]] = {
    "model" if (group, item.name) == ("model", "name") else item.name: (
        group, item, item.metadata.get("stage", kind.stage)
    )
    for group, kind in _GROUPS.items()
    for item in fields(kind)  # type: ignore[arg-type]
    if item.metadata
}  # fmt: skip
"""Group, field and stage of every setting, by its flat name."""


@dataclass(frozen=True, init=False)
class Settings:
    """Settings of a run; the defaults are the tool's.

    They may be given in groups, `Settings(quality=QualitySettings(preset="fast"))`, or flat,
    `Settings(preset="fast", detector="yunet")`; options of the detector and of the method flat as
    well, `Settings(method="serfiq", passes=50)`. They are read in groups,
    `settings.quality.preset`, or flat, `settings.preset`; only the model's name is
    `settings.model.name`.

    Attributes:
        task: one of `TASKS`.
        detection, alignment, model, quality, work: the groups, all defaults filled in.

    Raises:
        SettingsError: an unknown setting, or a value of a wrong type or range; the message says
            what is expected.
    """

    task: str
    detection: DetectionSettings
    alignment: AlignmentSettings
    model: ModelSettings
    quality: QualitySettings
    work: WorkSettings

    def __init__(
        self, task: str = "align-and-score", *, detection: DetectionSettings | None = None,
        alignment: AlignmentSettings | None = None, model: ModelSettings | str | Path | None = None,
        quality: QualitySettings | None = None, work: WorkSettings | None = None, **flat: Any,
    ) -> None:  # fmt: skip
        check(task in tuple(TASKS), "task", task, f"one of {', '.join(TASKS)}")
        if isinstance(model, (str, Path)):
            model, flat["model"] = None, str(model)
        if isinstance(flat.get("landmarks"), str):
            flat["landmarks"] = Path(flat["landmarks"])
        groups = {}
        given: tuple[Any, ...] = (detection, alignment, model, quality, work)
        for (group, kind), value in zip(_GROUPS.items(), given, strict=True):
            value = kind() if value is None else value
            check(isinstance(value, kind), group, repr(value), f"{kind.__name__}(...)")
            names = [name for name in flat if name in _HOMES and _HOMES[name][0] == group]
            changes = {_HOMES[name][1].name: flat.pop(name) for name in names}
            groups[group] = value.changed(**changes)
        vars(self).update(task=task, **_with_options(groups, flat))

    if TYPE_CHECKING:  # settings that are read flat in this package
        faces: str
        max_side: int
        landmarks: Path | None
        method: str
        preset: str
        eps: float
        precision: str
        max_pixels: int
        photo_timeout: float
        device: str
        workers: int | None
        engine: str
        ray_address: str | None
        keep_crops: bool
    else:

        def __getattr__(self, name: str) -> Any:
            """Return a setting by its flat name."""
            if name not in _HOMES:
                raise AttributeError(f"there is no setting {name}{suggestion(name, _HOMES)}")
            group, item, _ = _HOMES[name]
            return getattr(getattr(self, group), item.name)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Settings:
        """Return the settings that `as_dict` wrote, in this version or in 0.1.

        Names that this version does not know are ignored.

        Raises:
            SettingsError: a value that this version does not know, or a missing part.
        """
        parts = [
            registry.find(content.get(registry.kind, _HOMES[registry.kind][1].default))
            for registry in (DETECTORS, METHODS)
        ]
        known = {"task", *_HOMES}.union(*(part.fields for part in parts))
        return cls(**{name: value for name, value in content.items() if name in known})

    def replace(self, **changes: Any) -> Settings:
        """Return the settings with some values changed, given as to `Settings`.

        A value that is the default of the old detector, method or preset becomes that of the new
        one.
        """
        groups = {group: getattr(self, group) for group in _GROUPS}
        if isinstance(changes.get("model"), str):
            groups["model"] = replace(self.model, name=changes.pop("model"))
        return Settings(**{"task": self.task, **groups, **changes})

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of its task."""
        return TASKS[self.task]

    def identity(self, weights_sha256: str) -> dict[str, Any]:
        """Return everything that can change a record of such a run, and nothing else.

        Options of detectors and methods are in it if they differ from their defaults.
        `weights_sha256` is the recognition model's checksum (`FoundModel.weights`), "" without.
        """
        identity: dict[str, Any] = {"algorithm": ALGORITHM_VERSION, "task": self.task}
        if "detection" in self.stages:
            identity |= {"detection": DETECTION_VERSION, **self.detection.option_values()}
        values = self.as_dict()
        identity |= {name: values[name] for name in setting_names(*self.stages)}
        if "quality" in self.stages:
            identity |= self.quality.option_values()
            # a file is identified by its content, whatever its name
            identity["model"] = values["model"] if is_model_name(values["model"]) else "not by name"
            identity["weights_sha256"] = weights_sha256
        if "landmarks" in identity:
            # each record has its photo's landmarks_id, so the file may grow
            identity["landmarks"] = "detector" if self.landmarks is None else "file"
        return identity

    def fingerprint(self, weights_sha256: str) -> str:
        """Return the identity as a short text, see `fingerprint_of`."""
        return fingerprint_of(self.identity(weights_sha256))

    def as_dict(self) -> dict[str, Any]:
        """Return every setting by its flat name, as JSON values, as `run.json` holds them.

        Options of the detector and the method follow if they differ from their defaults.
        """
        values = {"task": self.task}
        for name, (group, item, _) in _HOMES.items():
            value = getattr(getattr(self, group), item.name)
            values[name] = str(value) if isinstance(value, Path) else value
        return values | self.detection.option_values() | self.quality.option_values()


def setting_field(name: str) -> Field[Any]:
    """Return the field of a setting by its flat name: type, default, help and range."""
    return _HOMES[name][1]


def setting_owner(name: str) -> type[Any]:
    """Return the class of the group of a setting."""
    return _GROUPS[_HOMES[name][0]]


def setting_names(*stages: str) -> tuple[str, ...]:
    """Return the flat names of all settings, or of those that matter to some stages."""
    return tuple(name for name, (_, _, stage) in _HOMES.items() if not stages or stage in stages)


def _with_options(groups: dict[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups with further options of the detector and the method.

    Raises:
        SettingsError: an unknown option, or one that both have.
    """
    parts: dict[str, Part] = {group: groups[group].part for group in ("detection", "quality")}
    for name in flat:
        owners = _owners(parts.values(), name)
        if not owners:
            others = _owners((*DETECTORS.imported, *METHODS.imported), name)
            known = {**_HOMES, **parts["detection"].fields, **parts["quality"].fields}
            hint = f" ({others[0]} has such an option)" if others else suggestion(name, known)
            raise SettingsError(f"there is no setting {name}{hint}")
        if len(owners) > 1:
            raise SettingsError(
                f"{' and '.join(owners)} both have an option {name}; they cannot be used together"
            )
    for group, part in parts.items():
        changes = {name: value for name, value in flat.items() if name in part.fields}
        if changes:
            options = part.make_options({**asdict(groups[group].options), **changes})
            groups[group] = replace(groups[group], options=options)
    return groups


def _owners(parts: Iterable[Part], option_name: str) -> list[str]:
    return [f"{part.kind} {part.name}" for part in parts if option_name in part.fields]


def is_model_name(model: str) -> bool:
    """Tell a model's name from a path, which has a dot or a slash, and from module:factory."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", model) is not None


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """Return a run's identity as a short text: equal if and only if scores may be compared."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


PUBLISHED: Mapping[str, Any] = {
    "detector": "mtcnn", "max_side": 0, "one_based": True, "antialias": False, "preset": "exact",
    "eps": 0.001, "eps_mode": "absolute", "steps": 5, "copies": 10, "exponent": 5.0,
    "clamp": "published",
}  # fmt: skip
"""The choices of the published code, and plain MTCNN and bilinear warping before it."""


def check_attack(copies: int, **options: Any) -> None:
    """Raise SettingsError if a setting of FaceQAN has a wrong type or range."""
    QualitySettings(copies=copies, **options)
    check(copies > 0, "copies", copies, f"1 to {MOST}")


def check_crops(template: str, size: int, size_name: str = "crop_size") -> None:
    """Raise SettingsError for an unknown template, or a size in pixels that is out of range.

    `size_name` is the size's name in the message.
    """
    AlignmentSettings(template=template)
    check(size in CROP_SIZES, size_name, size, f"{CROP_SIZES[0]} to {CROP_SIZES[-1]} pixels")
