"""The command line. Commands are imported when they are called, and torch when work starts."""

from __future__ import annotations

import errno
from importlib import import_module

import click

from faceqan_toolkit import __version__
from faceqan_toolkit.cli.command import Group
from faceqan_toolkit.cli.exit_codes import INTERRUPTED, MEANINGS
from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.errors import FaceQANError, SettingsError
from faceqan_toolkit.text import printable, reason_of

SECTIONS = {
    "Score photos": ["align-and-score", "detect", "align", "score"],
    "Use a run": ["rank", "filter", "report", "merge", "calibrate"],
    "Understand scores": ["explain", "evaluate"],
    "Set up": ["models", "doctor", "completion"],
}
"""Commands by section of the program's help."""

COMMANDS = {name: name.replace("-", "_") for names in SECTIONS.values() for name in names}
"""Modules in this package by command."""
GUIDE = """\
Raw photos in, ranked face-quality report out.

Type this first, with a folder of photos:

  faceqan-toolkit align-and-score PHOTOS -o run

Then look at run/report.html, and perhaps

  faceqan-toolkit rank run --bottom 20                   the worst faces
  faceqan-toolkit explain PHOTO -o why                   why a face has its score
  faceqan-toolkit filter run --keep-top 80% --mode copy --to kept

In a hurry: --preset fast. The same command again goes on where it stopped.
Something does not work: faceqan-toolkit doctor
All commands: faceqan-toolkit --help; options: faceqan-toolkit COMMAND --help
"""
"""What people see who type the program's name alone."""


class Commands(Group):
    """All commands; the module of one is imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(COMMANDS)

    def sections(self, ctx: click.Context) -> dict[str, list[str]]:
        """Return names of commands by their section in the help."""
        return SECTIONS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None if there is none by that name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"faceqan_toolkit.cli.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; errors become one line, or one event, and an exit code."""
        try:
            return self._invoke(ctx)
        except click.ClickException as error:
            tell = Reporter()
            if not tell.as_json:
                raise
            tell.emit("error", text=error.format_message(), exit_code=error.exit_code)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def _invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise click.UsageError(_shown(error)) from error
        except FaceQANError as error:
            raise click.ClickException(_shown(error)) from error
        except ImportError as error:
            raise click.ClickException(
                f"a package is missing or broken: {error}; `faceqan-toolkit doctor` says what to do"
            ) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # click knows what to do
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(_shown(where + reason_of(error))) from error


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExit codes:\n"
    + "\n".join(f"  {code:<5}{meaning}" for code, meaning in MEANINGS.items()),
)
@click.version_option(__version__, prog_name="faceqan-toolkit")
@click.pass_context
def cli(context: click.Context) -> None:
    """Raw photos in, ranked face-quality report out.

    MTCNN finds the faces, five landmarks align them to 112x112 crops, FaceQAN scores how well a
    recognition model can use them.

    \b
    Start with:
      faceqan-toolkit align-and-score photos/ -o run

    Options may also be set by environment variables, such as FACEQAN_PRESET=fast, and by a TOML
    file (--config).
    """
    if context.invoked_subcommand is None:
        click.echo(GUIDE, nl=False)


def _shown(message: object) -> str:
    """Return a message, which may quote a stranger's file, fit for a terminal."""
    return "\n".join(map(printable, str(message).split("\n")))


def main() -> None:
    """Run the command line."""
    cli(prog_name="faceqan-toolkit")
