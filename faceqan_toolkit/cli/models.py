"""`faceqan-toolkit models`: which recognition models there are, and yours."""

from __future__ import annotations

from pathlib import Path

import click

from faceqan_toolkit.cli import options
from faceqan_toolkit.cli.command import Group


@click.group("models", cls=Group)
def command() -> None:
    """List, show, add, verify and remove face recognition models."""


@command.command("list", example="models list")
def list_models() -> None:
    """List the models that --model accepts by name, and whether their weights are installed."""
    from faceqan_toolkit.cli.show import make_console
    from faceqan_toolkit.cli.tables import Cell, Column, print_table
    from faceqan_toolkit.errors import WeightsError
    from faceqan_toolkit.models import installed
    from faceqan_toolkit.models.registry import entries, offered
    from faceqan_toolkit.text import printable

    added = set(installed.names())
    rows: list[tuple[str, str, str, str, str]] = []
    for entry in entries().values():
        state = "built in" if entry.source == "built in" else "not here"
        state = "added" if entry.name in added else state
        rows.append((entry.name, state, entry.title, entry.trained_on, entry.commercial))
    for name in sorted(added - set(entries())):
        try:
            found = installed.find(name)
        except WeightsError as error:
            rows.append((name, "damaged", str(error), "", ""))
            continue
        if found is not None:
            rows.append((name, "added", found.entry.title, "", found.entry.commercial))
    for name, factory in offered().items():
        rows.append((name, "offered", factory, "", "unclear"))
    columns = [
        Column("name"),
        Column("weights"),
        Column("what", least=14),
        Column("trained on", least=12, drop=1),
        Column("commercial use", least=10),
    ]
    cells = [[Cell(printable(text)) for text in row] for row in rows]
    print_table(make_console(stderr=False), columns, cells)


@command.command("show", example="models show sface")
@click.argument("name")
def show(name: str) -> None:
    """Print a model's network, preprocessing, licence and paper to cite."""
    from faceqan_toolkit.errors import UnknownModel
    from faceqan_toolkit.models import installed
    from faceqan_toolkit.models.registry import HEADS, entries, offered

    found = installed.find(name)
    entry = found.entry if found else entries().get(name)
    if entry is None and name in (others := offered()):
        click.echo(f"{name}: offered by an installed package, made by {others[name]}")
        return
    if entry is None:
        raise UnknownModel(f"unknown model {name!r}; `faceqan-toolkit models list` shows them")
    weights = "not here" if entry.source != "built in" else f"built in, sha256 {entry.sha256}"
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
    if entry.source == "built in":
        lines["scale 0 to 100"] = "fitted to scores of photos published for research"
    if entry.sha256 and entry.source != "built in":
        lines["published sha256"] = entry.sha256
    for label, text in lines.items():
        click.echo(f"{label + ':':<18}{text}")


@command.command("add", example="models add cosface_r100_glint360k backbone.pth")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@options.model_options
@click.option(
    "--licence", default="", help="Licence of the weights, in words; for a model of your own."
)
@click.option(
    "--here",
    is_flag=True,
    help="Store it in this checkout's weights/added, not in your user folder.",
)
def add(
    name: str,
    file: Path,
    channels: str | None,
    pixel_mean: float | None,
    pixel_std: float | None,
    norm_eps: float | None,
    licence: str,
    here: bool,
) -> None:
    """Check weights FILE (.pth, .pt, .ckpt, .safetensors, .onnx) and store it as model NAME.

    NAME is a registered model (see `models list`), whose weights FILE must be, or a new name.
    """
    from faceqan_toolkit.cli.reporter import Reporter
    from faceqan_toolkit.errors import SettingsError
    from faceqan_toolkit.job import assumed_text
    from faceqan_toolkit.models import installed
    from faceqan_toolkit.settings import ModelOptions

    folder = installed.checkout_folder() if here else installed.user_folder()
    if folder is None:
        raise SettingsError("--here needs the package to run from a checkout of its repository")
    given = ModelOptions(channels, pixel_mean, pixel_std, norm_eps)
    tell = Reporter()
    model, embedder = installed.add(name, file, folder, given, licence)
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
    from faceqan_toolkit.errors import MissingDependency, WeightsError
    from faceqan_toolkit.models import installed
    from faceqan_toolkit.models.load import BUILT_IN, load_model

    broken = False
    for name in names or (BUILT_IN, *installed.names()):
        try:
            load_model(name)
            click.echo(f"{name}: verified")
        except (WeightsError, MissingDependency) as error:
            broken = True
            click.echo(f"{name}: {error}")
    if broken:
        raise click.exceptions.Exit(1)


@command.command("remove", example="models remove cosface_r100_glint360k")
@click.argument("name")
def remove(name: str) -> None:
    """Delete an added model."""
    from faceqan_toolkit.errors import UnknownModel
    from faceqan_toolkit.models import installed

    found = installed.find(name)
    if found is None:
        raise UnknownModel(
            f"no model was added by the name {name!r}; `faceqan-toolkit models list` shows "
            "which were"
        )
    installed.remove(found)
    click.echo(f"removed {found.path}")
