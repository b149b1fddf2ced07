"""The command line: commands turn options into a call of the library and show its result.

make_run: the commands align-and-score, detect, align, score and merge
calibrate, doctor, evaluate, explain, filter, models, rank, report: a command each
options: options that several commands share
command: classes of commands and groups, whose help has sections
config: options from environment variables and TOML files
reporter: messages on standard error, exit codes
progress: a bar or log lines for long work
show: rankings, summaries, calibrations, comparisons and groups as text
show_evaluation: evaluations as text
tables: tables that fit the terminal
"""

from __future__ import annotations

import errno
from importlib import import_module

import click

from faceqan_toolkit import __version__
from faceqan_toolkit.cli.command import PROGRAM, Command, Group
from faceqan_toolkit.cli.config import with_options
from faceqan_toolkit.cli.reporter import INTERRUPTED, MEANINGS, Reporter
from faceqan_toolkit.errors import FaceQANError, SettingsError
from faceqan_toolkit.text import printable, reason_of

SECTIONS = {
    "Score photos": ["align-and-score", "detect", "align", "score"],
    "Use a run": ["rank", "filter", "report", "merge", "calibrate"],
    "Understand scores": ["explain", "evaluate"],
    "Set up": ["models", "doctor", "completion"],
}
"""Commands by section of the program's help."""
COMMANDS = [name for names in SECTIONS.values() for name in names]
MAKE_RUN = ("align-and-score", "detect", "align", "score", "merge")
"""Commands in the module `make_run`; the others have a module each, or are here."""

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
"""Output of the program without arguments."""


class _Commands(Group):
    """All commands; the module of each is imported when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return COMMANDS

    def sections(self, ctx: click.Context) -> dict[str, list[str]]:
        return SECTIONS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name == "completion":
            return completion
        made = cmd_name in MAKE_RUN
        module = import_module(f"faceqan_toolkit.cli.{'make_run' if made else cmd_name}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_") if made else "command")
        return command

    def invoke(self, ctx: click.Context) -> object:
        # an error becomes one line, or one JSON event, and an exit code
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
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExit codes:\n"
    + "\n".join(f"  {code:<5}{meaning}" for code, meaning in MEANINGS.items()),
)
@click.version_option(__version__, prog_name=PROGRAM)
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


@click.command("completion", cls=Command, example="completion bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in SHELL with the Tab key.

    For the current bash or zsh:  eval "$(faceqan-toolkit completion bash)"
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None  # click knows all three
    click.echo(made(cli, {}, PROGRAM, "_FACEQAN_TOOLKIT_COMPLETE").source())


def _shown(message: object) -> str:
    """Return a message, which may quote an untrusted file, fit for a terminal."""
    return "\n".join(map(printable, with_options(str(message)).split("\n")))


def main() -> None:
    """Run the command line."""
    cli(prog_name=PROGRAM)
