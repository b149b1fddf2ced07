"""Options that several commands share; those of settings come from the settings' fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from faceqan_toolkit.choices import FORMATS
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.fields import kind_of
from faceqan_toolkit.photos.video import Every, parse_every
from faceqan_toolkit.registry import DETECTORS, METHODS, Registry
from faceqan_toolkit.settings import (
    PUBLISHED,
    DetectionSettings,
    Settings,
    setting_field,
    setting_owner,
)

if TYPE_CHECKING:
    from faceqan_toolkit.runs.todo import Shard

F = TypeVar("F", bound=Callable[..., Any])


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
        help="For a RUN: also read its photos on other machines, for instance by URL.",
    )(function)


class _PartName(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # click 8.2 and 8.4
    """The name of a registered detector or method."""

    name = "choice"

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or fail with those there are."""
        try:
            return self._registry.find(value).name
        except SettingsError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the names there are."""
        return f"[{'|'.join(self._registry)}]"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin so."""
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
        """Return the help and the options of all parts."""
        names, text = super().get_help_record(ctx) or ("", "")
        for name in self._registry:
            with suppress(SettingsError):  # a package that cannot be imported
                options = self._registry[name].fields.values()
                known = ", ".join(f"{item.name} [{item.default}]" for item in options)
                text += f" {name}: {known}." if known else ""
        return names, text


def _part_option(registry: Registry) -> Callable[[F], F]:
    return click.option(f"--{registry.kind}-option", cls=_PartOption, registry=registry)


def _setting(name: str, *short: str, flag: str = "", **attributes: Any) -> Callable[[F], F]:
    """Return the option of a setting; default, type and help come from its field.

    Args:
        name: of the setting.
        short: short forms, such as "-k".
        flag: "--on/--off" of a setting that is true or false.
        attributes: for click, in place of what the field says.
    """
    item = setting_field(name)
    kind = kind_of(setting_owner(name), item.name)
    long = flag or "--" + name.replace("_", "-")
    known: dict[str, Any] = {
        "default": item.default, "show_default": True, "help": item.metadata["help"],
        "metavar": item.metadata["metavar"] or None,
    }  # fmt: skip
    if item.metadata["choices"]:
        known["type"] = click.Choice(item.metadata["choices"])
    elif kind in (int, float):
        known["type"] = kind
    return click.option(*short, long, name, **{**known, **attributes})


def _of_detectors(name: str) -> str:
    """Return the built-in detectors' defaults of a setting: "0.9, yunet 0.7"."""
    first, *others = DETECTORS.imported
    texts = [f"{part.name} {part.defaults[name]}" for part in others]
    return ", ".join([str(first.defaults[name]), *texts])


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
    from faceqan_toolkit.runs.todo import Shard

    try:
        return Shard.parse(value) if value else None
    except SettingsError as error:
        raise click.BadParameter(str(error)) from None


archive_options = stack(
    click.option(
        "--every", callback=_every, default="1s", show_default=True, metavar="N|Ns",
        help="Frames of videos: one in N, or one every N seconds.",
    ),
    click.option(
        "--image-column", default="", show_default="found by its type", metavar="NAME",
        help="Column of parquet files that holds the photos.",
    ),
)  # fmt: skip


photos_argument = click.argument("photos", nargs=-1, required=True)

device_option = _setting("device")

identity_option = click.option(
    "--identity", metavar="first|last|N|FILE", show_default="first",
    help="Identity of a photo: first, last or Nth folder of its path, or a CSV file with the "
    "columns path and identity.",
)  # fmt: skip

machine_options = stack(_setting("max_pixels"), device_option)

group_options = stack(
    click.option(
        "--group-by", metavar="folder|COLUMN",
        help="Summarise faces by folder, or by a column of --groups.",
    ),
    click.option(
        "--groups", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="CSV",
        help="File for --group-by with the columns path (as in rankings) and COLUMN.",
    ),
)  # fmt: skip

workers_option = _setting(
    "workers", type=click.UNPROCESSED, callback=_number_or_auto, show_default="auto"
)

engine_options = stack(
    _setting("engine"),
    _setting("ray_address", show_default="a cluster of this machine alone"),
)

timeout_option = _setting("photo_timeout", show_default="300")

retry_option = click.option(
    "--retry-failed", is_flag=True, help="Retry every photo without a score."
)

format_option = click.option(
    "--format", "formats", type=click.Choice(FORMATS), multiple=True,
    default=["csv"], show_default=True, help="Format of the result file; may be repeated.",
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
        help="Process only the Ith of N parts of the photos, equal on every machine; see merge.",
    ),
    machine_options,
    timeout_option,
    workers_option,
    engine_options,
)  # fmt: skip


def faces_option(default: str = DetectionSettings.faces) -> Callable[[F], F]:
    """Return the option `--faces` with a default."""
    return _setting("faces", default=default)


detector_options = stack(
    _setting("detector", type=_PartName(DETECTORS)),
    _part_option(DETECTORS),
    _setting("min_face"),
    _setting("min_confidence", show_default=_of_detectors("min_confidence")),
    _setting("max_side", show_default=_of_detectors("max_side")),
    _setting("rotate", flag="--rotate/--no-rotate"),
    _setting("one_based", flag="--one-based/--zero-based"),
    _setting("landmarks", type=click.Path(path_type=Path, exists=True, dir_okay=False),
             show_default=False),
)  # fmt: skip

detection_options = stack(faces_option(), detector_options)

alignment_options = _setting("antialias", flag="--antialias/--no-antialias")

template_options = stack(_setting("template"), _setting("crop_size"))

crops_option = _setting("keep_crops", flag="--crops/--no-crops")

hints_option = _setting("hints", flag="--hints/--no-hints")

report_option = stack(
    click.option(
        "--report/--no-report", default=True, show_default=True,
        help="Write RUN/report.html.",
    ),
    click.option("--redact", is_flag=True, help="Omit all pictures from the report."),
)  # fmt: skip

calibration_option = click.option(
    "--calibration", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="File of `calibrate`: sets the scale of quality_100 and counts faces below thresholds.",
)  # fmt: skip

like_published_option = click.option(
    "--like-published", is_flag=True,
    help="Use the published FaceQAN code's choices, after plain MTCNN and bilinear warping.",
)  # fmt: skip

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

attack_options = stack(_setting("clamp"), _setting("precision"), _setting("backend"))

quality_options = stack(_setting("model"), method_options, _setting("seed"), attack_options)


def is_given(name: str) -> bool:
    """Return whether a parameter was given on the command line, even with its default value."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def make_settings(
    task: str,
    *,
    like_published: bool = False,
    detector_option: Sequence[str] = (),
    method_option: Sequence[str] = (),
    **options: Any,
) -> Settings:
    """Return the settings of a command's options.

    Args:
        task: one of `settings.TASKS`.
        like_published: take the published code's choices.
        detector_option, method_option: texts of the form "NAME=VALUE".
        options: further settings by flat name.

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
    for registry, pairs in ((DETECTORS, detector_option), (METHODS, method_option)):
        if pairs:
            options |= registry.find(options[registry.kind]).parse(pairs)
    return Settings(task=task, **options)
