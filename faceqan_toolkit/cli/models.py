"""`faceqan-toolkit models`: list, show, add, verify and remove recognition models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Group
from faceqan_toolkit.cli.reporter import FATAL, Reporter
from faceqan_toolkit.errors import MissingDependency, SettingsError, UnknownModel, WeightsError


@click.group("models", cls=Group)
def command() -> None:
    """List, show, add, verify and remove face recognition models."""


@command.command("list", example="models list")
def list_models() -> None:
    """List the models that --model accepts by name, and whether their weights are installed."""
    from faceqan_toolkit.cli.show import make_console
    from faceqan_toolkit.cli.tables import Column, cells_of, print_table
    from faceqan_toolkit.models.registry import known_models
    from faceqan_toolkit.text import printable

    columns = [
        Column("name", lambda model: printable(model.name)),
        Column("weights", lambda model: model.state),
        Column("what", lambda model: printable(model.title), least=14),
        Column("trained on", lambda model: model.trained_on, least=12, drop=1),
        Column("commercial use", lambda model: printable(model.commercial), least=10),
    ]
    print_table(make_console(stderr=False), columns, cells_of(columns, known_models()))


@command.command("show", example="models show sface")
@click.argument("name")
def show(name: str) -> None:
    """Print a model's network, preprocessing, licence and paper to cite."""
    from faceqan_toolkit.models.registry import HEADS, entries, find_added, offered

    found = find_added(name)
    entry = found.entry if found else entries().get(name)
    if entry is None and name in (others := offered()):
        click.echo(f"{name}: offered by an installed package, made by {others[name]}")
        return
    if entry is None:
        raise UnknownModel(f"unknown model {name!r}; `faceqan-toolkit models list` shows them")
    built_in = entry.source == "built in"
    weights = f"built in, sha256 {entry.sha256}" if built_in else "not here"
    if found:
        weights = f"{found.path}, sha256 {found.sha256}, made from {found.original[0]}"
    depth = f" {entry.depth}" if entry.depth else ""
    lines = {
        "name": entry.name,
        "what": entry.title,
        "network": f"{entry.family}{depth}, {entry.embedding_size}-d embeddings",
        "crops": f"{entry.input_size}x{entry.input_size}, template {entry.template}",
        "input": f"{entry.channels}, (pixel - {entry.mean:g}) / {entry.std:g}",
        "trained on": entry.trained_on,
        "paper": entry.paper,
        "licence": entry.licence,
        "commercial use": entry.commercial,
        "get it from": f"{entry.source}{', ' if entry.file else ''}{entry.file}",
        "weights": weights,
        "--preset instant": HEADS[name].notice if name in HEADS else "no, it has no head",
    }
    if built_in:
        lines["scale 0 to 100"] = "fitted to scores of photos published for research"
    elif entry.sha256:
        lines["published sha256"] = entry.sha256
    for label, text in lines.items():
        click.echo(f"{label + ':':<18}{text}")


@command.command("add", example="models add cosface_r100_glint360k backbone.pth")
@click.argument("name")
@click.argument("file", type=options.FILE)
@options.model_options
@click.option("--licence", default="",
              help="Licence of the weights, in words; for a model of your own.")  # fmt: skip
@click.option(
    "--here", is_flag=True,
    help="Store it in this checkout's weights/added, not in your user folder.",
)  # fmt: skip
def add(name: str, file: Path, licence: str, here: bool, **chosen: Any) -> None:
    """Check weights FILE (.pth, .pt, .ckpt, .safetensors, .onnx) and store it as model NAME.

    NAME is a registered model (see `models list`), whose weights FILE must be, or a new name.
    """
    from faceqan_toolkit.job import assumed_text
    from faceqan_toolkit.models.load import add_model
    from faceqan_toolkit.models.registry import checkout_folder, user_folder
    from faceqan_toolkit.settings import ModelSettings

    folder = checkout_folder() if here else user_folder()
    if folder is None:
        raise SettingsError("--here needs the package to run from a checkout of its repository")
    given = ModelSettings(**chosen).options
    tell = Reporter()
    model, embedder = add_model(name, file, folder, given, licence)
    click.echo(f"{name}: {embedder.title}, verified")
    for note in embedder.notes:
        tell.note(note)
    if embedder.assumed:
        tell.message(assumed_text(embedder.assumed))
    click.echo(f"weights  {model.path}")
    click.echo(f"sha256   {model.sha256}")
    click.echo(f"licence  {model.entry.licence}; commercial use: {model.entry.commercial}")


@command.command("verify", example="models verify")
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check that the weights of NAMES are unchanged and load; without NAMES, all installed ones."""
    from faceqan_toolkit.models.load import BUILT_IN, load_model
    from faceqan_toolkit.models.registry import added_names

    broken = False
    for name in names or (BUILT_IN, *added_names()):
        try:
            load_model(name)
            click.echo(f"{name}: verified")
        except (WeightsError, MissingDependency) as error:
            broken = True
            click.echo(f"{name}: {error}")
    if broken:
        raise click.exceptions.Exit(FATAL)


@command.command("remove", example="models remove cosface_r100_glint360k")
@click.argument("name")
def remove(name: str) -> None:
    """Delete an added model."""
    from faceqan_toolkit.models.registry import find_added, remove_added

    found = find_added(name)
    if found is None:
        shown = "`faceqan-toolkit models list` shows which were"
        raise UnknownModel(f"no model was added by the name {name!r}; {shown}")
    remove_added(found)
    click.echo(f"removed {found.path}")
