"""Commands and groups of commands: help in sections, and options from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from inspect import cleandoc
from typing import Any

import click
from click.core import ParameterSource

from faceqan_toolkit.cli import config, reporter
from faceqan_toolkit.cli.config import long_name

PROGRAM = "faceqan-toolkit"

SECTIONS = {
    "Most used": (
        "output", "to", "preset", "mode", "keep-top", "min-quality", "target-fnmr",
        "target-discard", "top", "bottom",
    ),
    "Input": (
        "run", "every", "image-column", "max-pixels", "aligned", "pairs", "non-mated", "identity",
        "scores", "embeddings", "scores-only", "name", "fetch", "worst", "best",
    ),
    "Faces": (
        "faces", "detector", "detector-option", "min-face", "min-confidence", "max-side", "rotate",
        "landmarks", "template", "crop-size",
    ),
    "Quality": (
        "model", "quality-model", "method", "method-option", "copies", "eps-mode", "hints",
        "calibration", "min-percentile", "per-identity", "min-per-identity", "per-window",
        "drop-status", "by", "like-published",
    ),
    "Error rates": (
        "fmr", "fnmr-start", "edc", "fte", "pair-quality", "template-quality", "bootstrap", "flip",
        "detector-weights",
    ),
    "Results": (
        "format", "crops", "report", "photos", "redact", "group-by", "groups", "below", "json",
        "what", "as", "shard-size", "manifest", "null", "dry-run", "undo", "legacy-pickle",
        "licence", "here",
    ),
    "Work": (
        "workers", "device", "backend", "retry-failed", "fail-on", "quiet", "verbose", "log-format",
        "photo-timeout", "shard", "engine", "ray-address",
    ),
    "Advanced": (
        "seed", "noise-seed", "eps", "steps", "exponent", "clamp", "precision", "antialias",
        "one-based", "channels", "pixel-mean", "pixel-std", "norm-eps", "config", "help",
    ),
}  # fmt: skip
"""Options by section, in the order in which people need them, without their two dashes."""

_PLACES = {
    option: (section, place)
    for section, options in SECTIONS.items()
    for place, option in enumerate(options)
}


def in_sections(options: Iterable[click.Parameter]) -> dict[str, list[click.Parameter]]:
    """Return options by section of the help, both in order.

    An option that `SECTIONS` does not name follows the option declared before it; options of a
    detector or method are thus beside the option that chooses it.
    """
    placed: dict[str, list[tuple[int, click.Parameter]]] = {section: [] for section in SECTIONS}
    section, place = "Advanced", 0
    for option in options:
        section, place = _PLACES.get(long_name(option), (section, place))
        placed[section].append((place, option))
    return {
        section: [option for _, option in sorted(members, key=lambda member: member[0])]
        for section, members in placed.items()
        if members
    }


class Command(click.Command):
    """A command whose options may also come from the environment or a configuration file.

    Args:
        example: arguments of an example in the help.
    """

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.params += [*reporter.options(), config.option()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; an error names the variable or file of a wrong value."""
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
        """Report the options that were given, then run the command."""
        reporter.choose(ctx)
        config.remember_options(ctx)
        tell = reporter.Reporter()
        given = [
            option for option in self.params
            if isinstance(option, click.Option) and option.name in ctx.params
            and ctx.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT
        ]  # fmt: skip
        origins = {long_name(option): config.origin(ctx, option) for option in given}
        values = {long_name(option): ctx.params[str(option.name)] for option in given}
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
            section: [option.get_help_record(ctx) or ("", "") for option in members]
            for section, members in in_sections(options).items()
        }
        _write_lists(formatter, sections)


class Group(click.Group):
    """A group of commands in the order of their declaration; it suggests names."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; if there is none, raise UsageError with a suggestion."""
        name = args[0]
        if not (ctx.resilient_parsing or name.startswith("-") or self.get_command(ctx, name)):
            hint = config.did_you_mean(name, self.list_commands(ctx))
            raise click.UsageError(f"No such command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def sections(self, ctx: click.Context) -> dict[str, list[str]]:
        """Return names of commands by their section in the help."""
        return {"Commands": self.list_commands(ctx)}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in sections, each with the first sentence of its description."""
        sections = {
            section: [(name, _summary(self.get_command(ctx, name))) for name in names]
            for section, names in self.sections(ctx).items()
        }
        _write_lists(formatter, sections)


def _summary(command: click.Command | None) -> str:
    """Return the first paragraph of a command's description on one line."""
    text = cleandoc(command.help or "") if command else ""
    return " ".join(text.partition("\n\n")[0].split())


def _write_lists(formatter: click.HelpFormatter, lists: dict[str, list[tuple[str, str]]]) -> None:
    """Write lists of terms and their descriptions, all with columns of the same widths."""
    widest = min(30, formatter.width // 3)
    width = min(widest, max(len(term) for rows in lists.values() for term, _ in rows))
    for title, rows in lists.items():
        # click prints a default in words in brackets of its own
        texts = [re.sub(r"\[default: \((.+?)\)(?=[];])", r"[default: \1", text) for _, text in rows]
        terms = [term.ljust(width) for term, _ in rows]
        with formatter.section(title):
            formatter.write_dl(list(zip(terms, texts, strict=True)), widest)
