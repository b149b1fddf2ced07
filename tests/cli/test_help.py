"""What `--help` prints of every command, and what a mistyped name prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from faceqan_toolkit.cli import COMMANDS, cli
from faceqan_toolkit.cli.command import PROGRAM, SECTIONS, Command, in_sections
from faceqan_toolkit.cli.config import long_name


def commands(group: click.Group = cli, name: str = "") -> Iterator[tuple[str, Command]]:
    """Yield every command that does something, with its full name."""
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}".strip())
        else:
            assert isinstance(command, Command), word
            yield f"{name} {word}".strip(), command


ALL = dict(commands())


def help_of(name: str, width: int = 80) -> str:
    words = [*name.split(), "--help"]
    done = CliRunner().invoke(cli, words, prog_name=PROGRAM, terminal_width=width)
    assert done.exit_code == 0, done.output
    return done.output


def options_of(command: Command) -> list[click.Option]:
    shown = command.get_params(click.Context(command))
    return [option for option in shown if isinstance(option, click.Option)]


def test_every_option_has_a_section() -> None:
    known = {name for names in SECTIONS.values() for name in names}
    used = {long_name(option) for command in ALL.values() for option in options_of(command)}
    assert used == known


@pytest.mark.parametrize("name", ALL)
def test_options_stand_in_sections_in_order(name: str) -> None:
    command = ALL[name]
    sections = in_sections(options_of(command))
    in_them = [long_name(option) for members in sections.values() for option in members]
    assert sorted(in_them) == sorted(map(long_name, options_of(command)))
    text = help_of(name)
    titles = [line[:-1] for line in text.splitlines() if line[:-1] in SECTIONS]
    assert titles == list(sections)
    assert "Options:" not in text
    assert text.rstrip().endswith("Show this message and exit.")
    first = next(iter(sections.values()))[0]
    if "output" in {option.name for option in options_of(command)}:
        assert long_name(first) == "output"


def test_the_preset_is_the_second_option() -> None:
    for name in ("align-and-score", "score", "explain", "evaluate lfw"):
        assert [long_name(one) for one in in_sections(options_of(ALL[name]))["Most used"]][:2] == [
            "output", "preset",
        ]  # fmt: skip


def test_an_option_that_no_section_names_stands_behind_the_one_declared_before_it() -> None:
    options = [click.Option([f"--{name}"]) for name in ("detector", "tile-overlap", "format")]
    sections = in_sections([*options[:2], click.Option(["--tile-size"]), options[2]])
    shown = {title: [long_name(one) for one in members] for title, members in sections.items()}
    assert shown == {"Faces": ["detector", "tile-overlap", "tile-size"], "Results": ["format"]}
    alone = in_sections([click.Option(["--tile-size"])])
    assert list(alone) == ["Advanced"]


@pytest.mark.parametrize("name", ALL)
def test_the_example_is_a_command(name: str, monkeypatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
    example = ALL[name].example
    assert example == name or example.startswith(f"{name} ")
    arguments = shlex.split(example)[len(name.split()) :]
    ALL[name].make_context(name, arguments)  # raises if an argument or option is wrong
    lines = help_of(name).splitlines()
    place = lines.index(f"    {PROGRAM} {example}")
    assert lines[place - 1] == "  Example:"
    assert place < 10


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", ["", *ALL, "models", "evaluate"])
def test_help_fits_the_terminal(name: str, width: int) -> None:
    text = help_of(name, width)
    too_long = [line for line in text.splitlines() if len(line) > width]
    # examples are one line each, and some words cannot be broken
    assert not [line for line in too_long if len(line.split()) > 4 and PROGRAM not in line]
    assert "[default: (" not in text


def test_the_programs_help_has_every_command_with_its_whole_first_sentence() -> None:
    text = "".join(help_of("").split())
    for name in COMMANDS:
        summary = (cli.get_command(click.Context(cli), name).help or "").split("\n\n")[0]
        assert f"{name}{''.join(summary.split())}" in text
    assert "4nothingtodo:nophotosfound" in text


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("aling", "No such command 'aling'. Did you mean align?"),
        ("evalute", "No such command 'evalute'. Did you mean evaluate?"),
        ("models lsit", "No such command 'lsit'. Did you mean list?"),
        ("evaluate lwf", "No such command 'lwf'. Did you mean lfw?"),
        ("xyzzy", "No such command 'xyzzy'."),
        ("align-and-score x -o y --workrs 3", "--workers"),
        ("rank run --tpo 3", "--top"),
    ],
)
def test_a_mistyped_name_gets_a_suggestion(typed: str, expected: str) -> None:
    done = CliRunner().invoke(cli, typed.split())
    assert done.exit_code == 2
    assert expected in done.stderr.splitlines()[-1]
