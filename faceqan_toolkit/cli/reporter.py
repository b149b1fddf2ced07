"""Events on standard error, as text for people or as JSON lines for programs, and exit codes."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from faceqan_toolkit.cli.config import with_options
from faceqan_toolkit.text import counted, printable

if TYPE_CHECKING:
    from faceqan_toolkit.cli.progress import Progress

FATAL, USAGE, SOME_FAILED, NO_PHOTOS, INTERRUPTED = 1, 2, 3, 4, 130
MEANINGS = {
    0: "done",
    FATAL: "fatal error",
    USAGE: "wrong usage",
    SOME_FAILED: "some photos or faces have no result (see --fail-on)",
    NO_PHOTOS: "nothing to do: no photos found",
    INTERRUPTED: "interrupted",
}
"""Exit codes as the program's help explains them."""

URGENT = ("warned", "error", "interrupted", "exit")
"""Events that `--quiet` shows."""

JSON_ONLY = ("wrote", "no_photos", "summary")
"""Events that text does not show: the summary names files and counts, the exit code the reason."""

LINES: Mapping[str, tuple[str, str | None]] = {
    "message": ("{text}", None),
    "note": ("Note: {text}", None),
    "warned": ("Warning: {text}", "yellow"),
    "error": ("Error: {text}", "red"),
    "exit": ("Exit code {code}: {text}", "yellow"),
    "interrupted": (
        "\nInterrupted. {done:,} of {total:,} photos are recorded in {folder}; the same command "
        "goes on from there.", None,
    ),
}  # fmt: skip
"""Text and colour of events that are one line."""

_SWITCHES = f"{__name__}.switches"


class Reporter:
    """Take events and print them on standard error, as the running command's options say.

    An event is a dataclass. Text shows those in `LINES`, those with a method here, such as
    `_show_planned`, and the others with `--verbose` only; JSON has all of them.

    Attributes:
        quiet: print errors and warnings only.
        verbose: print all events.
        as_json: print a JSON object a line: "event" is the event's name, the rest its fields.
        files: results that events named so far.
        no_photos: whether an event said that there are no photos.
    """

    def __init__(self) -> None:
        switches = _switches()
        self.quiet: bool = switches.get("quiet", False)
        self.verbose: bool = switches.get("verbose", False)
        self.as_json: bool = switches.get("log_format") == "json"
        self.files: list[Path] = []
        self.no_photos = False
        self._progress: Progress | None = None

    @property
    def shows_tables(self) -> bool:
        """Whether tables and progress bars are shown."""
        return not (self.quiet or self.as_json)

    def __call__(self, event: Any) -> None:
        """Print an event of the library."""
        name = re.sub(r"(?<=.)(?=[A-Z])", "_", type(event).__name__).lower()
        if name == "wrote":
            self.files.append(event.file)
        self.no_photos = self.no_photos or name == "no_photos"
        self.emit(name, **{field.name: getattr(event, field.name) for field in fields(event)})

    def emit(self, name: str, **values: Any) -> None:
        """Print an event, given its name as `no_photos` for a class NoPhotos, and its fields."""
        if self.quiet and name not in URGENT:
            return
        if "text" in values:
            values["text"] = with_options(values["text"])
        if self.as_json:
            time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            line = {"time": time, "event": name} | {key: _plain(one) for key, one in values.items()}
            click.echo(json.dumps(line), err=True)
        elif name in LINES:
            text, colour = LINES[name]
            self._print(text.format(**values), colour)
        elif show := getattr(self, f"_show_{name}", None):
            show(**values)
        elif self.verbose and name not in JSON_ONLY:
            told = ", ".join(f"{key} {_shown(value)}" for key, value in values.items())
            self._print(f"{name.capitalize()}: {told}" if told else name.capitalize())

    def message(self, text: str) -> None:
        """Print a line."""
        self.emit("message", text=text)

    def note(self, text: str) -> None:
        """Print a line that explains a result."""
        self.emit("note", text=text)

    def warn(self, text: str) -> None:
        """Print a line about a likely mistake; the work goes on."""
        self.emit("warned", text=text)

    def error(self, text: str) -> None:
        """Print a line about something that failed."""
        self.emit("error", text=text)

    def exit(self, code: int, text: str) -> NoReturn:
        """Print the exit code and its reason, and end the command."""
        self.emit("exit", code=code, text=text)
        raise click.exceptions.Exit(code)

    def _print(self, text: str, colour: str | None = None) -> None:
        """Print a line above the progress bar, if there is one."""
        text = "\n".join(map(printable, text.split("\n")))
        if self._progress is not None:
            self._progress.print(text, colour)
        else:
            colour = None if os.environ.get("NO_COLOR") else colour
            click.secho(text, err=True, fg=colour, reset=colour is not None)

    def _show_options(self, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        if self.verbose:
            told = (
                f"--{name} {_shown(value)}{f' (from {origins[name]})' if origins[name] else ''}"
                for name, value in values.items()
            )
            self._print(f"Options: {', '.join(told)}")

    def _show_planned(self, photos: int, known: int) -> None:
        done = f", {known:,} of them done before" if known else ""
        self._print(counted(photos, "photo") + done)

    def _show_started(self, total: int, unit: str = "photo") -> None:
        from faceqan_toolkit.cli.progress import Progress

        self._progress = Progress(total, unit, quiet=not self.shows_tables)
        self._progress.__enter__()

    def _show_worker_ready(self, pid: int, device: str, host: str = "") -> None:
        if self.verbose:
            self._print(f"Worker {pid}{host and f' of {host}'} is ready on {device}")

    def _show_loaded(self, workers: int = 0) -> None:
        if self._progress is not None:
            self._progress.loaded()
        if self.verbose and workers:
            self._print(f"Loaded: {counted(workers, 'worker')}")

    def _show_advanced(self, number: int, records: Sequence[Any] = ()) -> None:
        if self._progress is not None:
            self._progress.advance(records, number)

    def _show_ended(self, complete: bool) -> None:
        if self._progress is not None:
            self._progress.__exit__(None if complete else Exception)
            self._progress = None


def _plain(value: Any) -> Any:
    """Return a value for JSON; fields of records without a value are left out."""
    if is_dataclass(value):
        pairs = {field.name: getattr(value, field.name) for field in fields(value)}
        return {key: _plain(one) for key, one in pairs.items() if one is not None and one != ""}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _shown(value: Any) -> str:
    """Return a value as text for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def code_for(failed: int, total: int) -> int:
    """Return the exit code of a complete command that lacks `failed` of `total` results."""
    fail_on = _switches().get("fail_on", "any")
    if fail_on == "all":
        fails = failed == total
    else:
        fails = fail_on != "never" and failed > (0 if fail_on == "any" else float(fail_on) * total)
    return SOME_FAILED if failed and fails else 0


def choose(context: click.Context) -> None:
    """Settle whether a command is quiet or verbose if both were given.

    Raises:
        UsageError: both were given in the same place.
    """
    switches = context.meta[_SWITCHES]
    if switches["quiet"] and switches["verbose"]:
        quiet, verbose = map(context.get_parameter_source, ("quiet", "verbose"))
        if quiet is verbose:
            raise click.UsageError("--quiet and --verbose contradict each other")
        # the command line overrides the environment, which overrides the configuration file
        order = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
        first = next(source for source in order if source in (quiet, verbose))
        switches["verbose" if quiet is first else "quiet"] = False


def _switches() -> Mapping[str, Any]:
    """Return the options of the running command that choose what is printed, and `fail_on`."""
    context = click.get_current_context(silent=True)
    return context.meta.get(_SWITCHES, {}) if context else {}


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    context.meta.setdefault(_SWITCHES, {})[option.name] = value


def _remember_fail_on(context: click.Context, option: click.Parameter, value: str) -> None:
    try:
        valid = value in ("never", "any", "all") or 0 <= float(value) <= 1
    except ValueError:
        valid = False
    if not valid:
        raise click.BadParameter(f"{value!r} is not never, any, all or a share from 0 to 1.")
    _remember(context, option, value)


fail_on_option = click.option("--fail-on", default="any", show_default=True, expose_value=False,
                              callback=_remember_fail_on, metavar="never|any|all|SHARE",
                              help="When photos or faces without a result mean exit code 3: any "
                              "of them, all, more than this share (0..1), or never.")  # fmt: skip


def options() -> list[click.Option]:
    """Return the options that choose what the reporter prints."""
    shared: dict[str, Any] = {"expose_value": False, "callback": _remember}
    return [
        click.Option(["-q", "--quiet"], is_flag=True, **shared,
                     help="Print results, errors and warnings only."),
        click.Option(["-v", "--verbose"], is_flag=True, **shared,
                     help="Also print the options given, starts of workers, and timings."),
        click.Option(
            ["--log-format"], type=click.Choice(["text", "json"]), default="text",
            show_default=True, **shared,
            help="On standard error: text, or a JSON object a line, see docs/commands.md.",
        ),
    ]  # fmt: skip
