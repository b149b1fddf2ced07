"""The command line. Commands are imported when they are called, and torch when work starts."""

from __future__ import annotations

import errno
from importlib import import_module

import click

from faceqan_toolkit import __version__
from faceqan_toolkit.errors import FaceQANError, SettingsError
from faceqan_toolkit.paths import printable
from faceqan_toolkit.wording import reason_of

SOME_FAILED = 3
"""Exit code: done, but some photos, faces or files have no result."""

COMMANDS = {
    "align-and-score": "align_and_score",
    "detect": "detect",
    "align": "align",
    "score": "score",
    "rank": "rank",
    "filter": "filter",
    "calibrate": "calibrate",
    "report": "report",
    "merge": "merge",
    "models": "models",
    "explain": "explain",
    "evaluate": "evaluate",
    "doctor": "doctor",
    "completion": "completion",
}


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


class Commands(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names, in the order of a photo's way through them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None if there is none by that name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"faceqan_toolkit.cli.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; errors become one line and an exit code."""
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
        except KeyboardInterrupt:
            ctx.exit(130)


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Exit codes: 0 all scored, 1 fatal error, 2 wrong usage, 3 done but some photos or faces "
        "have no score, 130 interrupted."
    ),
)
@click.version_option(__version__, prog_name="faceqan-toolkit")
@click.pass_context
def cli(context: click.Context) -> None:
    """Raw photos in, ranked face-quality report out.

    MTCNN finds the faces, five landmarks align them to 112x112 crops, FaceQAN scores how well a
    recognition model can use them.

    Start with:  faceqan-toolkit align-and-score PHOTOS -o RUN
    """
    if context.invoked_subcommand is None:
        click.echo(GUIDE, nl=False)


def _shown(message: object) -> str:
    """Return a message, which may quote a stranger's file, fit for a terminal."""
    return "\n".join(map(printable, str(message).split("\n")))


def main() -> None:
    """Run the command line."""
    cli(prog_name="faceqan-toolkit")
