"""Options from environment variables and from a TOML file.

Precedence: command line, environment, file, default.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "FACEQAN"
PROJECT_FILE = "pyproject.toml"
TABLE = "faceqan-toolkit"
"""Table below `[tool]` in pyproject.toml."""

NOT_SETTABLE = ("config", "help")
"""Options that a file cannot set."""
NEEDS_TRUST = {"ray-address", "output", "to", "mode", "manifest", "undo", "legacy-pickle", "fetch"}
"""Options that send photos to other machines, or decide which files are written or moved.

Untrusted photos may come with a pyproject.toml, so it may set these, or choose a model that is
code, only if `--config` names it.
"""

_FILE, _OPTIONS = f"{__name__}.file", f"{__name__}.options"


def long_name(option: click.Parameter) -> str:
    """Return an option's long name without its dashes."""
    names = [name for name in option.opts if name.startswith("--")]
    return (names or option.opts)[0].lstrip("-")


def variables(context: click.Context, option: click.Option) -> list[str]:
    """Return the environment variables of an option: FACEQAN_RANK_TOP, then FACEQAN_TOP."""
    words = _command_words(context)
    prefixes = [[PREFIX, *words[:number]] for number in range(len(words), -1, -1)]
    return ["_".join([*words, long_name(option)]).replace("-", "_").upper() for words in prefixes]


def _command_words(context: click.Context) -> list[str]:
    """Return the names of a command and of the groups it is in, without the program's."""
    if context.parent is None:
        return []
    return [*_command_words(context.parent), str(context.info_name)]


def origin(context: click.Context, option: click.Parameter) -> str:
    """Return the variable or file that sets an option; "" for the command line or the default."""
    source = context.get_parameter_source(str(option.name))
    if source is ParameterSource.ENVIRONMENT and isinstance(option, click.Option):
        return next(name for name in variables(context, option) if os.environ.get(name))
    return str(context.meta[_FILE]) if source is ParameterSource.DEFAULT_MAP else ""


def typed_options(*allowed: str) -> list[str]:
    """Return the options that the command line itself gives, as `--name`, except those allowed.

    `options.is_given` also counts the environment and configuration files.
    """
    context = click.get_current_context()
    return [
        f"--{long_name(parameter)}"
        for parameter in context.command.params
        if parameter.name in context.params and parameter.name not in allowed
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]  # fmt: skip


def remember_options(context: click.Context) -> None:
    """Keep the options of the running command for `with_options`."""
    context.meta[_OPTIONS] = {
        name: f"--{long_name(one)}"
        for one in context.command.params
        if isinstance(one, click.Option)
        for name in (one.name, long_name(one).replace("-", "_"))
    }


def with_options(text: str) -> str:
    """Return a library message with settings as options of the running command.

    The library writes a setting as `min_quality`, the name of the argument in Python; this returns
    --min-quality for it. Words in backticks that are no option of the command stay.
    """
    context = click.get_current_context(silent=True)
    options = context.meta.get(_OPTIONS, {}) if context else {}
    return re.sub("`([a-z_]+)`", lambda found: str(options.get(found[1], found[0])), text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the most similar known word; "" if none is similar."""
    close = get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _load(context: click.Context, _option: click.Parameter, file: Path | None) -> None:
    """Take a command's options from a file, or from pyproject.toml of the working directory."""
    if context.resilient_parsing:  # shell completion
        return
    context.meta[_FILE] = file or PROJECT_FILE
    table = _read(file or Path(PROJECT_FILE), optional=file is None)
    if table:
        root = context.find_root()
        _check(table, root.command, root, [])
        context.default_map = _defaults(context, table, trusted=file is not None)


def option() -> click.Option:
    """Return the option that names a configuration file."""
    return click.Option(
        ["--config"], type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
        is_eager=True, expose_value=False, callback=_load, show_default=f"./{PROJECT_FILE}",
        help="Take options from this TOML file, see docs/commands.md.",
    )  # fmt: skip


def _read(file: Path, *, optional: bool) -> dict[str, Any]:
    """Return the options in a TOML file: pyproject.toml, or a file for this tool alone.

    Args:
        file: the file.
        optional: return {} if the file is missing or does not mention this tool.
    """
    if optional and not file.is_file():
        return {}
    try:
        data = file.read_bytes()
        if optional and TABLE.encode() not in data:
            return {}
        table = tomllib.loads(data.decode("utf-8"))
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not TOML
        raise click.UsageError(f"{file} cannot be read: {error}") from error
    for name in ("tool", TABLE) if file.name == PROJECT_FILE else ():
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise click.UsageError(f"{file}: {name} is not a table")
    return table


def _check(
    table: Mapping[str, Any], command: click.Command, context: click.Context, above: list[str]
) -> None:
    """Raise UsageError for keys that are neither an option nor a command.

    Args:
        table: options of the command, and a table for each of its subcommands.
        command: the program, a group or a command.
        context: of the program.
        above: names of the tables around this one.
    """
    inside = f" in [{'.'.join(above)}]" if above else ""
    where = f"{context.meta[_FILE]}{inside}: "
    names = _option_names(command, context)
    commands = command.list_commands(context) if isinstance(command, click.Group) else []
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner = command.get_command(context, key) if isinstance(command, click.Group) else None
            if inner is None:
                raise click.UsageError(f"{where}no command {key!r}.{did_you_mean(key, commands)}")
            _check(value, inner, context, [*above, key])
        elif key not in names:
            raise click.UsageError(f"{where}no option {key!r}.{did_you_mean(key, names)}")


def _option_names(command: click.Command, context: click.Context) -> list[str]:
    """Return the options of a command, or of all commands in a group."""
    if isinstance(command, click.Group):
        inner = (command.get_command(context, name) for name in command.list_commands(context))
        return [name for found in inner if found for name in _option_names(found, context)]
    options = (one for one in command.params if isinstance(one, click.Option))
    return [name for name in map(long_name, options) if name not in NOT_SETTABLE]


def _defaults(context: click.Context, table: Mapping[str, Any], *, trusted: bool) -> dict[str, Any]:
    """Return the values for a command's parameters; its own table overrides the outer ones."""
    from faceqan_toolkit.models.registry import is_factory

    found: dict[str, Any] = {}
    for word in ["", *_command_words(context)]:
        table = table.get(word, {}) if word else table
        found |= {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    values = {}
    for option in context.command.params:
        name = long_name(option)
        if isinstance(option, click.Option) and name in found:
            where = f"{context.meta[_FILE]}: {name}"
            if not trusted and (name in NEEDS_TRUST or is_factory(str(found[name]))):
                raise click.UsageError(
                    f"{where} = {found[name]!r} is used only if you trust the file: give --config "
                    f"{PROJECT_FILE}"
                )
            values[str(option.name)] = _value(option, found[name], where)
    return values


def _value(option: click.Option, value: Any, where: str) -> Any:
    """Return a value of a file as click parses it: text, a list of texts, or a bool for a flag."""
    if option.is_flag != isinstance(value, bool):
        wanted = "true or false" if option.is_flag else "a value, not true or false"
        raise click.UsageError(f"{where} takes {wanted}")
    if option.is_flag:
        return value
    values = value if isinstance(value, list) and option.multiple else [value]
    if not all(isinstance(item, str | int | float) for item in values):
        wanted = "text, a number, or a list of these" if option.multiple else "text or a number"
        raise click.UsageError(f"{where} takes {wanted}")
    return [str(item) for item in values] if option.multiple else str(value)
