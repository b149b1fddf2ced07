"""Events on standard error, as text for people or as JSON lines for programs."""

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

from faceqan_toolkit.text import counted, printable

if TYPE_CHECKING:
    from faceqan_toolkit.cli.progress import Progress

URGENT = ("warned", "error", "interrupted", "exit")
"""Events that `--quiet` shows."""

_SWITCHES = f"{__name__}.switches"


class Reporter:
    """Take events and print them on standard error, as the running command's options say.

    An event is a dataclass. Text shows those that have a method here, such as `_show_note`, and
    the others with `--verbose` only; JSON has all of them.

    Attributes:
        quiet: print errors and warnings only.
        verbose: print all events.
        as_json: print a JSON object a line: "event" is the event's name, the rest its fields.
        files: results that events named so far.
        no_photos: whether an event said that there are no photos.
    """

    def __init__(self) -> None:
        context = click.get_current_context(silent=True)
        switches = context.meta.get(_SWITCHES, {}) if context else {}
        self.quiet: bool = switches.get("quiet", False)
        self.verbose: bool = switches.get("verbose", False)
        self.as_json: bool = switches.get("log_format") == "json"
        self.files: list[Path] = []
        self.no_photos = False
        self._progress: Progress | None = None

    @property
    def shows_tables(self) -> bool:
        """Whether tables, bars and the like are shown."""
        return not (self.quiet or self.as_json)

    def __call__(self, event: Any) -> None:
        """Print an event of the library."""
        name = re.sub(r"(?<=.)(?=[A-Z])", "_", type(event).__name__).lower()
        values = {field.name: getattr(event, field.name) for field in fields(event)}
        if name == "wrote":
            self.files.append(event.file)
        self.no_photos = self.no_photos or name == "no_photos"
        self.emit(name, **values)

    def emit(self, name: str, **values: Any) -> None:
        """Print an event, given its name as `no_photos` for a class NoPhotos, and its fields."""
        if self.quiet and name not in URGENT:
            return
        if self.as_json:
            time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            line = {"time": time, "event": name} | {key: _plain(one) for key, one in values.items()}
            click.echo(json.dumps(line), err=True)
        elif show := getattr(self, f"_show_{name}", None):
            show(**values)
        elif self.verbose:
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
        """Print the exit code and its reason, and end the command.

        Raises:
            Exit: always.
        """
        self.emit("exit", code=code, text=text)
        raise click.exceptions.Exit(code)

    def _print(self, text: str, colour: str | None = None) -> None:
        """Print a line above the progress bar, if there is one."""
        text = "\n".join(map(printable, text.split("\n")))
        if self._progress is not None:
            self._progress.print(text, colour)
        elif colour and not os.environ.get("NO_COLOR"):
            click.secho(text, err=True, fg=colour)
        else:
            click.echo(text, err=True)

    def _show_options(self, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        if self.verbose:
            told = (
                f"--{name} {_shown(value)}{f' (from {origins[name]})' if origins[name] else ''}"
                for name, value in values.items()
            )
            self._print(f"Options: {', '.join(told)}")

    def _show_message(self, text: str) -> None:
        self._print(text)

    def _show_note(self, text: str) -> None:
        self._print(f"Note: {text}")

    def _show_warned(self, text: str) -> None:
        self._print(f"Warning: {text}", "yellow")

    def _show_error(self, text: str) -> None:
        self._print(f"Error: {text}", "red")

    def _show_exit(self, code: int, text: str) -> None:
        self._print(f"Exit code {code}: {text}", "yellow")

    def _show_planned(self, photos: int, known: int) -> None:
        done = f", {known:,} of them done before" if known else ""
        self._print(counted(photos, "photo") + done)

    def _show_wrote(self, file: Path) -> None:
        """Show nothing: a summary names the files."""

    def _show_no_photos(self, text: str) -> None:
        """Show nothing: the exit code is explained."""

    def _show_summary(self, **_values: Any) -> None:
        """Show nothing: the summary's lines are messages."""

    def _show_started(self, total: int, unit: str = "photo") -> None:
        from faceqan_toolkit.cli.progress import Progress

        self._progress = Progress(total, unit, quiet=not self.shows_tables)
        self._progress.__enter__()

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

    def _show_interrupted(self, done: int, total: int, folder: Path) -> None:
        self._print(
            f"\nInterrupted. {done:,} of {total:,} photos are recorded in {folder}; the same "
            "command goes on from there."
        )


def _plain(value: Any) -> Any:
    """Return a value of JSON; fields of records that are not known are left out."""
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


def choose(context: click.Context) -> None:
    """Settle what the reporters of a command print.

    Raises:
        UsageError: both `--quiet` and `--verbose` were given.
    """
    switches = context.meta[_SWITCHES]
    if switches["quiet"] and switches["verbose"]:
        sources = {name: context.get_parameter_source(name) for name in ("quiet", "verbose")}
        if sources["quiet"] is sources["verbose"]:
            raise click.UsageError("--quiet and --verbose contradict each other")
        # the command line overrules the environment, which overrules the configuration file
        given = [name for source in _PRECEDENCE for name in sources if sources[name] is source]
        switches[given[-1]] = False


_PRECEDENCE = [
    ParameterSource.COMMANDLINE,
    ParameterSource.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP,
]


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    context.meta.setdefault(_SWITCHES, {})[option.name] = value


def options() -> list[click.Option]:
    """Return the options that choose what the reporter prints."""
    shared: dict[str, Any] = {"expose_value": False, "callback": _remember}
    return [
        click.Option(
            ["-q", "--quiet"], is_flag=True, **shared,
            help="Print results, errors and warnings only.",
        ),
        click.Option(
            ["-v", "--verbose"], is_flag=True, **shared,
            help="Also print the options given, starts of workers, and timings.",
        ),
        click.Option(
            ["--log-format"], type=click.Choice(["text", "json"]), default="text",
            show_default=True, **shared,
            help="On standard error: text, or a JSON object a line, see docs/commands.md.",
        ),
    ]  # fmt: skip
