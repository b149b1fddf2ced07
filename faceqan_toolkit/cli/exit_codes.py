"""Exit codes of the program."""

from __future__ import annotations

import click

FATAL = 1
"""An error stopped the command."""

USAGE = 2
"""The command line, the environment or a configuration file is wrong."""

SOME_FAILED = 3
"""The command is complete, but some photos, faces or files have no result; see `--fail-on`."""

NO_PHOTOS = 4
"""No photos were found, so there was nothing to do."""

INTERRUPTED = 130
"""Ctrl-C stopped the command."""

MEANINGS = {
    0: "done",
    FATAL: "fatal error",
    USAGE: "wrong usage",
    SOME_FAILED: "some photos or faces have no result (see --fail-on)",
    NO_PHOTOS: "nothing to do: no photos found",
    INTERRUPTED: "interrupted",
}


_FAIL_ON = f"{__name__}.fail_on"


def _remember(context: click.Context, _option: click.Parameter, value: str) -> None:
    if value not in ("never", "any", "all"):
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise click.BadParameter(f"{value!r} is not never, any, all or a share from 0 to 1.")
    context.meta[_FAIL_ON] = value


fail_on_option = click.option(
    "--fail-on", default="any", show_default=True, expose_value=False, callback=_remember,
    metavar="never|any|all|SHARE",
    help="When photos or faces without a result mean exit code 3: any of them, all, more than this "
    "share (0..1), or never.",
)  # fmt: skip


def code_for(failed: int, total: int) -> int:
    """Return the exit code of a complete command, as `--fail-on` of the current command says.

    Args:
        failed: number of results that are missing.
        total: number of results there should be.
    """
    context = click.get_current_context(silent=True)
    fail_on = context.meta.get(_FAIL_ON, "any") if context else "any"
    return SOME_FAILED if _is_failure(failed, total, fail_on) else 0


def _is_failure(failed: int, total: int, fail_on: str) -> bool:
    if fail_on == "never" or not failed:
        return False
    if fail_on == "all":
        return failed == total
    return fail_on == "any" or failed > float(fail_on) * total
