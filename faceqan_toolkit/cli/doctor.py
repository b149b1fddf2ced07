"""`faceqan-toolkit doctor`."""

from __future__ import annotations

import click

from faceqan_toolkit.cli.command import Command


@click.command("doctor", cls=Command, example="doctor")
def command() -> None:
    """Check Python, packages, GPU, weights, folders and extras of this machine.

    For everything broken or missing, says what to do. Exit code 1: something is broken.
    """
    from faceqan_toolkit.diagnosis import diagnose

    broken = 0
    for finding in diagnose():
        click.echo(f"{finding.label:<12}{finding.text}")
        if finding.advice:
            click.echo(f"{'':<12}-> {finding.advice}")
        broken += finding.broken
    if broken:
        click.echo(f"\n{broken} thing{'s are' if broken > 1 else ' is'} broken; -> says what to do")
        raise click.exceptions.Exit(1)
    click.echo("\nNothing is broken.")
