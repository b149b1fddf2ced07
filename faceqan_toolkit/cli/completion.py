"""`faceqan-toolkit completion`."""

from __future__ import annotations

import click

from faceqan_toolkit.cli.command import Command


@click.command("completion", cls=Command, example="completion bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script that completes commands and options in SHELL with the Tab key.

    For the current bash or zsh:  eval "$(faceqan-toolkit completion bash)"
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root()
    made = get_completion_class(shell)
    assert made is not None  # click knows all three
    name = str(root.info_name)
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    click.echo(made(root.command, {}, name, variable).source())
