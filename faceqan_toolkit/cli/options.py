"""Options that several commands share. Defaults come from `Settings`, their one home."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from faceqan_toolkit.choices import FORMATS
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.methods import METHODS
from faceqan_toolkit.photos.video import Every, parse_every
from faceqan_toolkit.runs.shards import Shard
from faceqan_toolkit.settings import (
    BACKENDS,
    CLAMPS,
    DETECTORS,
    ENGINES,
    EPS_MODES,
    FACE_POLICIES,
    PRECISIONS,
    PRESETS,
    PUBLISHED,
    TEMPLATES,
    Settings,
)

F = TypeVar("F", bound=Callable[..., Any])

DEFAULTS = {field.name: field.default for field in fields(Settings)}


def stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator that does what several do, the first outermost."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def fetch_option(function: F) -> F:
    """Add `--fetch`, for commands that look for a run's photos again."""
    return click.option(
        "--fetch",
        is_flag=True,
        help="Of a RUN: read photos that it names on other machines, by URL for instance.",
    )(function)


def _option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """Return an option whose default is that of the setting it is named after."""
    setting = next(name for name in names if name.startswith("--"))
    setting = setting.split("/")[0].lstrip("-").replace("-", "_")
    attributes.setdefault("default", DEFAULTS.get(setting))
    attributes.setdefault("show_default", True)
    return click.option(*names, **attributes)


def _number_or_auto(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> int | None:
    """Return the number, or None for auto."""
    if value is None or value == "auto":
        return None
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor auto") from None


def _every(_context: click.Context, _option: click.Parameter, value: str) -> Every:
    try:
        return parse_every(value)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from None


def _shard(_context: click.Context, _option: click.Parameter, value: str | None) -> Shard | None:
    try:
        return Shard.parse(value) if value else None
    except SettingsError as error:
        raise click.BadParameter(str(error)) from None


archive_options = stack(
    click.option(
        "--every", callback=_every, default="1s", show_default=True, metavar="N|Ns",
        help="Of videos: one frame in N, or one in N seconds.",
    ),
    click.option(
        "--image-column", default="", show_default="found by its type", metavar="NAME",
        help="Of parquet files: the column with the photos.",
    ),
)  # fmt: skip


photos_argument = click.argument("photos", nargs=-1, required=True)

device_option = _option(
    "--device", metavar="DEVICE", help="auto, cpu, cuda (all GPUs), cuda:N or mps.",
)  # fmt: skip

identity_option = click.option(
    "--identity", metavar="first|last|N|FILE", show_default="first",
    help="A photo's person: the first, last or Nth folder of its path, or a CSV file with the "
    "columns path and identity.",
)  # fmt: skip

machine_options = stack(
    _option("--max-pixels", type=int, metavar="N", help="Do not decode photos with more pixels."),
    device_option,
)

group_options = stack(
    click.option(
        "--group-by", metavar="folder|COLUMN",
        help="Summarise the faces of each folder, or of each value in a column of --groups.",
    ),
    click.option(
        "--groups", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="CSV",
        help="With --group-by: a file with the columns path (as in rankings) and COLUMN.",
    ),
)  # fmt: skip

workers_option = _option(
    "--workers", callback=_number_or_auto, metavar="auto|N", show_default="auto",
    help="Processes side by side, one core each, or one GPU; auto: as many as are worth it.",
)  # fmt: skip

engine_options = stack(
    _option(
        "--engine", type=click.Choice(ENGINES),
        help="local: this machine; ray: a Ray cluster (an extra), see docs/scale.md.",
    ),
    _option(
        "--ray-address", metavar="ADDRESS", show_default="a cluster of this machine alone",
        help="With --engine ray: the cluster, as ray.init takes it; auto finds one.",
    ),
)  # fmt: skip

timeout_option = _option(
    "--photo-timeout", type=float, metavar="SECONDS", show_default="300",
    help="Give a photo up that takes longer to decode and search; 0: never.",
)  # fmt: skip

retry_option = click.option(
    "--retry-failed", is_flag=True, help="Try every photo without a score again."
)

format_option = click.option(
    "--format", "formats", type=click.Choice(FORMATS), multiple=True,
    default=["csv"], show_default=True, help="Result file's format; may be repeated.",
)  # fmt: skip

run_options = stack(
    archive_options,
    click.option(
        "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True,
        metavar="RUN", help="Run folder; an existing one is continued.",
    ),
    format_option,
    retry_option,
    click.option(
        "--shard", callback=_shard, metavar="I/N", show_default="none",
        help="Only the Ith of N parts of the photos, the same on every machine; see merge.",
    ),
    machine_options,
    timeout_option,
    workers_option,
    engine_options,
)  # fmt: skip


def faces_option(default: str = Settings.faces) -> Callable[[F], F]:
    """Return the option `--faces` with a default."""
    return _option(
        "--faces", type=click.Choice(FACE_POLICIES), default=default,
        help="Which detected faces to score.",
    )  # fmt: skip


detector_options = stack(
    _option(
        "--detector", type=click.Choice(list(DETECTORS)),
        help="mtcnn, or yunet: several times as fast, landmarks less exact.",
    ),
    _option(
        "--min-face", type=int, metavar="PX", help="Smallest face: shorter side of its box.",
    ),
    _option(
        "--min-confidence", type=float, metavar="C", help="Least confidence of the detector, 0..1.",
        show_default="0.9, yunet 0.7",
    ),
    _option(
        "--max-side", type=int, metavar="PX",
        help="Longer side photos are reduced to for detection; 0 keeps them as they are.",
        show_default="1600, yunet 960",
    ),
    _option(
        "--rotate/--no-rotate",
        help="Also look in the photo turned by 90, 180 and 270 degrees.",
    ),
    _option(
        "--one-based/--zero-based",
        help="Keep facenet-pytorch's coordinates: 1 px too large, stretched at the photo's edges.",
    ),
    click.option(
        "--landmarks", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="CSV",
        help="Take faces from this file instead of detecting them: path, ten coordinates, "
        "confidence.",
    ),
)  # fmt: skip

detection_options = stack(faces_option(), detector_options)

alignment_options = stack(
    _option(
        "--antialias/--no-antialias",
        help="Average pixels where a face is shrunk more than twice, or sample them plainly.",
    ),
)

template_options = stack(
    _option(
        "--template", type=click.Choice(TEMPLATES),
        help="arcface: five landmarks to InsightFace's places; box: the face's box, as FaceNet's.",
    ),
    _option("--crop-size", type=int, metavar="PX", help="Side of the crops."),
)  # fmt: skip

crops_option = click.option(
    "--crops/--no-crops", "keep_crops", default=DEFAULTS["keep_crops"], show_default=True,
    help="Keep the aligned crops in RUN/crops.",
)  # fmt: skip

hints_option = _option(
    "--hints/--no-hints",
    help="Measure what may be wrong with each face, beside its score.",
)

report_option = stack(
    click.option(
        "--report/--no-report", default=True, show_default=True,
        help="Write RUN/report.html, a page to look at the result.",
    ),
    click.option("--redact", is_flag=True, help="Leave every picture out of the report."),
)  # fmt: skip

calibration_option = click.option(
    "--calibration", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="What `calibrate` wrote: gives quality_100 its scale, and counts faces below thresholds.",
)  # fmt: skip

like_published_option = click.option(
    "--like-published", is_flag=True,
    help="Every choice as the published FaceQAN code makes it, after plain MTCNN and warping.",
)  # fmt: skip

model_options = stack(
    _option(
        "--channels", type=click.Choice(["RGB", "BGR"]), show_default="the network's own",
        help="Colour order a weights file wants.",
    ),
    _option(
        "--pixel-mean", type=float, metavar="M", show_default="the network's own",
        help="Subtracted from pixels, 0..255.",
    ),
    _option(
        "--pixel-std", type=float, metavar="S", show_default="the network's own",
        help="Pixels are divided by it after that.",
    ),
    _option(
        "--norm-eps", type=float, metavar="E", show_default="the network's own",
        help="Of every batch norm.",
    ),
)  # fmt: skip

method_options = stack(
    _option(
        "--method", type=click.Choice(list(METHODS)),
        help="Quality measure; others than faceqan have no presets and take no noise.",
    ),
    model_options,
    _option(
        "--preset", type=click.Choice(list(PRESETS)),
        help="exact is the paper's; fast takes 2 copies: nearly the same ranking, 4 times as fast; "
        "instant predicts the score from one pass.",
    ),
    _option("-e", "--eps", type=float, help="Noise and step size; pixels are in 0..1."),
    _option(
        "--eps-mode", type=click.Choice(EPS_MODES),
        help="absolute is the paper's; contrast: less eps for crops of low contrast, such as dark "
        "ones. Never compare the two's scores.",
    ),
    _option("-l", "--steps", type=int, help="Attack steps at which similarity is measured."),
    _option(
        "-k", "--copies", type=click.IntRange(min=0), show_default="10, or the preset's",
        help="Noisy copies of each crop; 0: the preset's.",
    ),
    _option("-p", "--exponent", type=float, help="Exponent of the score."),
)  # fmt: skip

attack_options = stack(
    _option(
        "--clamp", type=click.Choice(CLAMPS),
        help="Bounds of attacked pixels: the published [-1, 1], or the valid [0, 1].",
    ),
    _option(
        "--precision", type=click.Choice(PRECISIONS),
        help="tf32: coarser products, faster on NVIDIA GPUs, nearly the same ranking.",
    ),
    _option(
        "--backend", type=click.Choice(BACKENDS),
        help="What computes the attack: torch, openvino (an extra) on a CPU, or compile: "
        "torch.compile. auto: openvino where it is faster, else torch.",
    ),
)  # fmt: skip

quality_options = stack(
    _option(
        "--model", metavar="MODEL",
        help="Face recognition model: a name (see `models list`), a weights file, or "
        "package.module:factory.",
    ),
    method_options,
    _option("--seed", type=int, help="Of the noise."),
    attack_options,
)  # fmt: skip


def is_given(name: str) -> bool:
    """Tell whether whoever typed the command gave a parameter, be it its default's value."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def assumed_text(assumed: Sequence[str]) -> str:
    """Return what people are told of a weights file that does not tell all."""
    return (
        f"No weights file tells these, so the network's usual ones are taken: {', '.join(assumed)}."
        " Other values: --channels, --pixel-mean, --pixel-std, --norm-eps."
    )


def make_settings(task: str, *, like_published: bool = False, **options: Any) -> Settings:
    """Return the settings a command's options mean.

    Raises:
        SettingsError: a bad value, or one that contradicts `--like-published`.
    """
    if like_published:
        for name, value in PUBLISHED.items():
            if name not in options:
                continue
            if is_given(name) and options[name] != value:
                raise SettingsError(
                    f"--like-published sets {name.replace('_', '-')} to {value}; "
                    "leave one of the two options out"
                )
            options[name] = value
    return Settings(task=task, **options)
