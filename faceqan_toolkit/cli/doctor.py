"""`faceqan-toolkit doctor`."""

from __future__ import annotations

import platform
import sys
from importlib.util import find_spec

import click


@click.command("doctor")
def command() -> None:
    """Tell what this machine can run: device, versions, models, extras."""
    import torch

    from faceqan_toolkit.device import resolve_device
    from faceqan_toolkit.embedders.zoo import MODELS, load_embedder
    from faceqan_toolkit.errors import WeightsError
    from faceqan_toolkit.runs import versions

    click.echo(f"python      {sys.version.split()[0]} on {platform.platform()}")
    for package, number in versions().items():
        click.echo(f"{package:<24}{number}")
    device = resolve_device("auto")
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    click.echo(f"device      {device} (--device auto); CUDA: {', '.join(gpus) or 'no GPU seen'}")
    click.echo(f"threads     {torch.get_num_threads()}")
    broken = False
    for model in MODELS.values():
        try:
            load_embedder(model.name)
            state = "weights verified"
        except WeightsError as error:
            state, broken = str(error), True
        click.echo(f"model       {model.name}: {model.summary}, {model.licence}; {state}")
    heif = "installed" if find_spec("pillow_heif") else "missing; faceqan-toolkit[heif] adds HEIC"
    click.echo(f"extra       heif: {heif}")
    openvino = "missing; faceqan-toolkit[openvino] scores faster on x86-64 CPUs"
    if find_spec("openvino"):
        openvino = "installed"
    click.echo(f"extra       openvino: {openvino}")
    if broken:
        raise click.exceptions.Exit(1)
