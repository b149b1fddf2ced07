"""Options that several commands share; options of settings come from the settings' fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from faceqan_toolkit.cli.reporter import fail_on_option
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.fields import kind_of
from faceqan_toolkit.registry import DETECTORS, METHODS, Registry
from faceqan_toolkit.settings import (
    FORMATS,
    PUBLISHED,
    DetectionSettings,
    Settings,
    setting_field,
    setting_owner,
)

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
INPUT_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
FOLDER = click.Path(path_type=Path, file_okay=False)
COUNT, WHOLE = click.IntRange(min=1), click.IntRange(min=0)


def stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator for several; the first is the outermost."""
    return lambda function: reduce(lambda inner, one: one(inner), reversed(decorators), function)


class _PartName(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # click 8.2 and 8.4
    """The name of a registered detector or method; packages may register more at any time."""

    name = "choice"

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return self._registry.find(value).name
        except SettingsError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join(self._registry)}]"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self._registry if name.startswith(incomplete)]


class _PartOption(click.Option):
    """`NAME=VALUE` for an option of the detector or method; its help lists all of them."""

    def __init__(self, names: Sequence[str], registry: Registry) -> None:
        self._registry = registry
        text = f"Option of the {registry.kind}; may be repeated."
        super().__init__(
            names, multiple=True, default=(), show_default="none", metavar="NAME=VALUE", help=text
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names, text = super().get_help_record(ctx) or ("", "")
        for name in self._registry:
            with suppress(SettingsError):  # a package that cannot be imported
                options = self._registry[name].fields.values()
                known = ", ".join(f"{item.name} [{item.default}]" for item in options)
                text += f" {name}: {known}." if known else ""
        return names, text


def _part_option(registry: Registry) -> Callable[[F], F]:
    return click.option(f"--{registry.kind}-option", cls=_PartOption, registry=registry)


def _setting(name: str, *flags: str, **attributes: Any) -> Callable[[F], F]:
    """Return the option of a setting; default, type and help come from its field.

    `flags` are short forms, such as "-k", or another long form; `attributes` are arguments of
    `click.option` that replace those of the field.
    """
    item = setting_field(name)
    kind = kind_of(setting_owner(name), item.name)
    if not any(flag.startswith("--") for flag in flags):
        long = name.replace("_", "-")
        flags = (*flags, f"--{long}/--no-{long}" if kind is bool else f"--{long}")
    known: dict[str, Any] = {
        "default": item.default, "show_default": True, "help": item.metadata["help"],
        "metavar": item.metadata["metavar"] or None,
    }  # fmt: skip
    if item.metadata["choices"]:
        known["type"] = click.Choice(item.metadata["choices"])
    elif kind in (int, float):
        known["type"] = kind
    return click.option(*flags, name, **{**known, **attributes})


def _of_detectors(name: str) -> str:
    """Return the built-in detectors' defaults of a setting: "0.9, yunet 0.7"."""
    texts = (f"{part.name} {part.defaults[name]}" for part in DETECTORS.imported)
    return ", ".join(texts).removeprefix(f"{DetectionSettings.detector} ")


def _number_or_auto(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> int | None:
    """Return the number, or None for auto."""
    try:
        return None if value in (None, "auto") else int(value or "")
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor auto") from None


photos_argument = click.argument("photos", nargs=-1, required=True)
run_argument = click.argument("run", type=PATH)

# settings
alignment_options = _setting("antialias")
attack_options = stack(_setting("clamp"), _setting("precision"), _setting("backend"))
crops_option = _setting("keep_crops", "--crops/--no-crops")
device_option = _setting("device")
hints_option = _setting("hints")
machine_options = stack(_setting("max_pixels"), device_option)
template_options = stack(_setting("template"), _setting("crop_size"))
workers_option = _setting(
    "workers", type=click.UNPROCESSED, callback=_number_or_auto, show_default="auto"
)


def faces_option(default: str = DetectionSettings.faces) -> Callable[[F], F]:
    """Return the option `--faces` with a default."""
    return _setting("faces", default=default)


detector_options = stack(
    _setting("detector", type=_PartName(DETECTORS)),
    _part_option(DETECTORS),
    _setting("min_face"),
    _setting("min_confidence", show_default=_of_detectors("min_confidence")),
    _setting("max_side", show_default=_of_detectors("max_side")),
    _setting("rotate"),
    _setting("one_based", "--one-based/--zero-based"),
    _setting("landmarks", type=INPUT_FILE, show_default=False),
)
detection_options = stack(faces_option(), detector_options)
model_options = stack(
    *(_setting(name, show_default="the network's own")
      for name in ("channels", "pixel_mean", "pixel_std", "norm_eps"))
)  # fmt: skip
method_options = stack(
    _setting("method", type=_PartName(METHODS)),
    _part_option(METHODS),
    model_options,
    _setting("preset"),
    _setting("eps", "-e"),
    _setting("eps_mode"),
    _setting("steps", "-l"),
    _setting("copies", "-k", show_default="10, or the preset's"),
    _setting("exponent", "-p"),
)
quality_options = stack(_setting("model"), method_options, _setting("seed"), attack_options)

# arguments of the library's functions
archive_options = stack(
    click.option("--every", default="1s", show_default=True, metavar="N|Ns",
                 help="Frames of videos: one in N, or one every N seconds."),
    click.option("--image-column", default="", show_default="found by its type", metavar="NAME",
                 help="Column of parquet files that holds the photos."),
)  # fmt: skip
calibration_option = click.option("--calibration", type=FILE, metavar="FILE",
                                  help="File of `calibrate`: sets the scale of quality_100 and "
                                  "counts faces below thresholds.")  # fmt: skip
fetch_option = click.option("--fetch", is_flag=True,
                            help="For a RUN: also read its photos on other machines, for instance "
                            "by URL.")  # fmt: skip
format_option = click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True,
                             default=["csv"], show_default=True,
                             help="Format of the result file; may be repeated.")  # fmt: skip
group_options = stack(
    click.option("--group-by", metavar="folder|COLUMN",
                 help="Summarise faces by folder, or by a column of --groups."),
    click.option("--groups", type=INPUT_FILE, metavar="CSV",
                 help="File for --group-by with the columns path (as in rankings) and COLUMN."),
)  # fmt: skip
identity_option = click.option("--identity", metavar="first|last|N|FILE", show_default="first",
                               help="Identity of a photo: first, last or Nth folder of its path, "
                               "or a CSV file with the columns path and identity.")  # fmt: skip
like_published_option = click.option("--like-published", is_flag=True,
                                     help="Use the published FaceQAN code's choices, after plain "
                                     "MTCNN and bilinear warping.")  # fmt: skip
report_option = stack(
    click.option(
        "--report/--no-report", default=True, show_default=True, help="Write RUN/report.html."
    ),
    click.option("--redact", is_flag=True, help="Omit all pictures from the report."),
)
retry_option = click.option("--retry-failed", is_flag=True,
                            help="Retry every photo without a score.")  # fmt: skip
run_options = stack(
    archive_options,
    click.option("-o", "--output", type=FOLDER, required=True, metavar="RUN",
                 help="Run folder; an existing one is continued."),
    format_option,
    retry_option,
    click.option("--shard", metavar="I/N", show_default="none",
                 help="Process only the Ith of N parts of the photos, equal on every machine; see "
                 "merge."),
    machine_options,
    _setting("photo_timeout", show_default="300"),
    workers_option,
    _setting("engine"),
    _setting("ray_address", show_default="a cluster of this machine alone"),
    fail_on_option,
)  # fmt: skip


def is_given(name: str) -> bool:
    """Return whether a parameter was given on the command line, even with its default value."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def make_settings(
    task: str, *, like_published: bool = False, detector_option: Sequence[str] = (),
    method_option: Sequence[str] = (), **options: Any,
) -> Settings:  # fmt: skip
    """Return the settings of a command's options.

    `detector_option` and `method_option` are texts "NAME=VALUE", `options` other settings by flat
    name. Raise SettingsError for a bad value, or one that contradicts `--like-published`.
    """
    published = {name: value for name, value in PUBLISHED.items() if name in options}
    for name, value in published.items() if like_published else ():
        if is_given(name) and options[name] != value:
            raise SettingsError(
                f"--like-published sets {name.replace('_', '-')} to {value}; "
                "leave one of the two options out"
            )
        options[name] = value
    for registry, pairs in ((DETECTORS, detector_option), (METHODS, method_option)):
        if pairs:
            options |= registry.find(options[registry.kind]).parse(pairs)
    return Settings(task=task, **options)
