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

    from faceqan_toolkit import yunet
    from faceqan_toolkit.device import resolve_device
    from faceqan_toolkit.embedders import installed
    from faceqan_toolkit.embedders.zoo import BUILT_IN, HEADS, find_model
    from faceqan_toolkit.errors import MissingDependency, WeightsError
    from faceqan_toolkit.runs import versions
    from faceqan_toolkit.weights import read_weights

    click.echo(f"python      {sys.version.split()[0]} on {platform.platform()}")
    for package, number in versions().items():
        click.echo(f"{package:<24}{number}")
    device = resolve_device("auto")
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    click.echo(f"device      {device} (--device auto); CUDA: {', '.join(gpus) or 'no GPU seen'}")
    click.echo(f"threads     {torch.get_num_threads()}")
    broken = False
    for name in (BUILT_IN, *installed.names()):
        try:
            embedder = find_model(name).load()
            state = f"{embedder.title}; weights verified"
        except (WeightsError, MissingDependency) as error:
            state, broken = str(error), True
        click.echo(f"model       {name}: {state}")
    for what, weights, sha256 in (
        *((f"head of {name}", head.weights, head.sha256) for name, head in HEADS.items()),
        ("detector yunet", yunet.WEIGHTS, yunet.SHA256),
    ):
        try:
            read_weights(weights, sha256)
            state = "weights verified"
        except WeightsError as error:
            state, broken = str(error), True
        click.echo(f"weights     {what}: {state}")
    remote = "installed" if find_spec("fsspec") else "missing; faceqan-toolkit[remote] adds URLs"
    click.echo(f"extra       remote: {remote}")
    heif = "installed" if find_spec("pillow_heif") else "missing; faceqan-toolkit[heif] adds HEIC"
    click.echo(f"extra       heif: {heif}")
    onnx = "missing; faceqan-toolkit[onnx] takes recognition models that are ONNX files"
    if find_spec("onnx") and find_spec("onnx2torch") and find_spec("onnxruntime"):
        onnx = "installed"
    click.echo(f"extra       onnx: {onnx}")
    openvino = "missing; faceqan-toolkit[openvino] scores faster on x86-64 CPUs"
    if find_spec("openvino"):
        openvino = "installed"
    click.echo(f"extra       openvino: {openvino}")
    if broken:
        raise click.exceptions.Exit(1)
