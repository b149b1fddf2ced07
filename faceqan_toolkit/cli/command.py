"""Commands with an example and sections in their help, and options from elsewhere."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import Any

import click
from click.core import ParameterSource

from faceqan_toolkit.cli import config, reporter
from faceqan_toolkit.cli.sections import in_sections, long_name

PROGRAM = "faceqan-toolkit"


class Command(click.Command):
    """A command whose options may also come from the environment or a configuration file.

    Args:
        example: arguments that show a common use.
    """

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.params += [*reporter.options(), config.option()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; an error says where its value comes from."""
        for option in self.params:
            if isinstance(option, click.Option):
                option.envvar = config.variables(ctx, option)
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            if error.param is not None and (origin := config.origin(ctx, error.param)):
                text = f"{error.message.rstrip('.')} (from {origin})."
                raise click.BadParameter(text, error.ctx, error.param) from error
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; say first which options were given elsewhere."""
        reporter.choose(ctx)
        tell = reporter.Reporter()
        given = {
            option: ctx.params[str(option.name)]
            for option in self.params
            if isinstance(option, click.Option) and option.name in ctx.params
            and ctx.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT
        }  # fmt: skip
        origins = {long_name(option): config.origin(ctx, option) for option in given}
        values = {long_name(option): value for option, value in given.items()}
        tell.emit("options", values=values, origins=origins)
        unnamed = [name for name, origin in origins.items() if origin == config.PROJECT_FILE]
        if unnamed and not tell.verbose:
            tell.note(f"options from {config.PROJECT_FILE}: {', '.join(unnamed)}")
        return super().invoke(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first paragraph of the description, the example, and the rest."""
        first, _, rest = cleandoc(self.help or "").partition("\n\n")
        example = f"\b\nExample:\n  {PROGRAM} {self.example}"
        for text in filter(None, (first, example, rest)):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(text)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in sections."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        sections = {
            section: [_help_record(option, ctx) for option in members]
            for section, members in in_sections(options).items()
        }
        write_lists(formatter, sections)


def _help_record(option: click.Parameter, context: click.Context) -> tuple[str, str]:
    """Return an option's names and its help; defaults in words have no brackets of their own."""
    names, text = option.get_help_record(context) or ("", "")
    return names, re.sub(r"\[default: \((.+?)\)(?=[];])", r"[default: \1", text)


class Group(click.Group):
    """A group of commands in the order of their declaration; it suggests names."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is meant.

        Raises:
            UsageError: there is no such command.
        """
        name = args[0]
        if not (ctx.resilient_parsing or name.startswith("-") or self.get_command(ctx, name)):
            raise click.UsageError(
                f"No such command {name!r}.{config.did_you_mean(name, self.list_commands(ctx))}",
                ctx,
            )
        return super().resolve_command(ctx, args)

    def sections(self, ctx: click.Context) -> dict[str, list[str]]:
        """Return names of commands by their section in the help."""
        return {"Commands": self.list_commands(ctx)}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in sections, each with the first sentence of its description."""
        write_lists(
            formatter,
            {
                section: [(name, _summary(self.get_command(ctx, name))) for name in names]
                for section, names in self.sections(ctx).items()
            },
        )


def _summary(command: click.Command | None) -> str:
    """Return the first paragraph of a command's description on one line."""
    text = cleandoc(command.help or "") if command else ""
    return " ".join(text.partition("\n\n")[0].split())


def write_lists(formatter: click.HelpFormatter, lists: dict[str, list[tuple[str, str]]]) -> None:
    """Write lists of terms and their descriptions, all with columns of the same widths."""
    widest = min(30, formatter.width // 3)
    longest = max((len(term) for rows in lists.values() for term, _ in rows), default=0)
    width = min(widest, longest)
    for title, rows in lists.items():
        with formatter.section(title):
            formatter.write_dl([(term.ljust(width), text) for term, text in rows], widest)
