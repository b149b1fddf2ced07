"""Commands with an example and sections in their help, and options from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import click
from click.core import ParameterSource

from faceqan_toolkit.cli import config
from faceqan_toolkit.cli.reporter import make_reporter, reporter
from faceqan_toolkit.cli.sections import in_sections, long_name

PROGRAM = "faceqan-toolkit"

COMMON_OPTIONS = (
    click.Option(
        ["-q", "--quiet"], is_flag=True, is_eager=True, expose_value=False,
        callback=make_reporter, help="Print errors and warnings only, besides results.",
    ),
    click.Option(
        ["-v", "--verbose"], is_flag=True, is_eager=True, expose_value=False,
        callback=make_reporter, help="Also print the options in force, workers and timings.",
    ),
    click.Option(
        ["--log-format"], type=click.Choice(["text", "json"]), default="text", show_default=True,
        is_eager=True, expose_value=False, callback=make_reporter,
        help="What standard error gets: text, or one JSON object a line (docs/commands.md).",
    ),
    config.option,
)  # fmt: skip
"""Options of every command."""


class Command(click.Command):
    """A command whose options may come from the environment or a configuration file.

    Args:
        example: arguments that show how the command is used, without the program's name.
    """

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = f"{PROGRAM} {example}"
        self.params += COMMON_OPTIONS

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; an error says if its value came from elsewhere."""
        for option in self.params:
            if isinstance(option, click.Option):
                option.envvar = config.variables(ctx, option)
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            if error.param is not None and (origin := config.origin(ctx, error.param)):
                error.message += f" ({origin})"
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with `--verbose`, say first which options are in force."""
        chosen = {
            long_name(option): ctx.params[option.name]
            for option in self.params
            if option.name in ctx.params and isinstance(option, click.Option)
            and ctx.get_parameter_source(option.name) is not ParameterSource.DEFAULT
        }  # fmt: skip
        reporter().emit("options", {"options": chosen})
        return super().invoke(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first paragraph of the description, the example, and the rest."""
        first, _, rest = (self.help or "").partition("\n\n")
        for number, text in enumerate((first, f"\b\nExample:\n  {self.example}", rest)):
            if text:
                formatter.write_paragraph()
                with formatter.indentation():
                    formatter.write_text(text)
