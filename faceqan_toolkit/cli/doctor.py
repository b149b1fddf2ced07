"""`faceqan-toolkit doctor`: checks of this machine, and what to do about each problem.

Every check imports what it needs itself, so that a package that is missing or broken is a finding.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceqan_toolkit.cli.command import Command
from faceqan_toolkit.cli.reporter import FATAL
from faceqan_toolkit.text import first_line, reason_of
from faceqan_toolkit.threads import keep_onnxruntime_private

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

OLDEST_PYTHON = (3, 10)
LOW_DISK_BYTES = 10**9

MODULES = {
    "facenet-pytorch": "",  # only its weights are read, see `check_weights`
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "scikit-image": "skimage",
}
"""Modules of packages with another name; empty for a package that is not imported."""

EXTRAS = {
    "heif": (("pillow_heif",), "reads HEIC, HEIF and AVIF photos"),
    "openvino": (("openvino",), "scores faster on x86-64 CPUs"),
    "onnx": (("onnx", "onnx2torch", "onnxruntime"), "takes recognition models that are ONNX files"),
    "remote": (("fsspec",), "reads photos behind URLs"),
    "ray": (("ray",), "spreads a run over many machines"),
    "evaluate": (("matplotlib",), "draws the figures of evaluate"),
}
"""Modules and purpose by extra."""

NOSY = ("matplotlib", "openvino")
"""Modules that are not imported here, as importing them writes to the user's home."""


@dataclass(frozen=True)
class Finding:
    """One result of a check: its subject, what was found, what to do, whether it is a fault."""

    label: str
    text: str
    advice: str = ""
    broken: bool = False


@click.command("doctor", cls=Command, example="doctor")
def command() -> None:
    """Check Python, packages, GPU, weights, folders and extras of this machine.

    For everything broken or missing, says what to do. Exit code 1: something is broken.
    """
    broken = 0
    for finding in diagnose():
        click.echo(f"{finding.label:<12}{finding.text}")
        if finding.advice:
            click.echo(f"{'':<12}-> {finding.advice}")
        broken += finding.broken
    if broken:
        click.echo(f"\n{broken} thing{'s are' if broken > 1 else ' is'} broken; -> says what to do")
        raise click.exceptions.Exit(FATAL)
    click.echo("\nNothing is broken.")


def diagnose() -> Iterator[Finding]:
    """Yield all findings; a check that fails itself is a finding."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        check_python, check_packages, check_numpy_in_torch, check_device, check_weights,
        check_folders, check_extras,
    )  # fmt: skip
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 - the other checks go on
            what = check.__name__.removeprefix("check_").replace("_", " ")
            text = f"cannot be checked: {first_line(error)}"
            yield Finding(what, text, "mend what is reported above first", broken=True)


def check_python() -> Iterator[Finding]:
    """Yield the interpreter's version and the system."""
    old = sys.version_info < OLDEST_PYTHON
    advice = f"install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer" if old else ""
    yield Finding("python", f"{sys.version.split()[0]} on {platform.platform()}", advice, old)


def check_packages() -> Iterator[Finding]:
    """Yield version and state of every required package."""
    try:
        wanted = requires("faceqan-toolkit") or []
        yield Finding("package", f"{'faceqan-toolkit':<24}{version('faceqan-toolkit')}")
    except PackageNotFoundError:
        advice = "from its checkout: python -m pip install -e ."
        yield Finding("package", "faceqan-toolkit is not installed", advice, broken=True)
        return
    from packaging.requirements import Requirement

    for line in wanted:
        requirement = Requirement(line)
        # a marker says for which Python, system or extra a package is wanted
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement.name, requirement.specifier)


def _package(name: str, bounds: SpecifierSet) -> Finding:
    """Return a package's version, and whether it is supported and can be imported."""
    install = f"pip install '{name}{bounds}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding("package", f"{name:<24}missing", install, broken=True)
    text, advice = f"{name:<24}{found}", ""
    module = MODULES.get(name, name.replace("-", "_"))
    if not bounds.contains(found, prereleases=True):
        advice = f"this version is not supported: {install}"
    elif module and (error := _import_error(module)):
        text += f"  cannot be imported: {first_line(error)}"
        advice = advice_for(name, error)
    return Finding("package", text, advice, broken=bool(advice))


def _import_error(module: str) -> Exception | None:
    """Return the exception that importing a module raises, or None."""
    try:
        import_module(module)
    except Exception as error:  # noqa: BLE001 - broken packages raise anything
        return error
    return None


def advice_for(package: str, error: Exception) -> str:
    """Return what to do about a package that cannot be imported."""
    text = str(error)
    if "torchvision::" in text or (package == "torchvision" and "undefined symbol" in text):
        return (
            "torchvision was built for another torch; install both in one command: "
            "pip install --upgrade --force-reinstall torch torchvision"
        )
    if re.search(r"numpy|multiarray|dtype size changed", text, re.I) and package != "numpy":
        return f"it was built for another numpy: pip install --upgrade numpy {package}"
    if re.search(r"cannot open shared object file|DLL load failed|Library not loaded", text):
        return f"a library of the system is missing, or {package} is for another system"
    return f"pip install --force-reinstall {package}"


def check_numpy_in_torch() -> Iterator[Finding]:
    """Yield a finding if torch cannot exchange arrays with numpy."""
    import numpy as np
    import torch

    try:
        torch.from_numpy(np.zeros(1)).numpy()
    except (RuntimeError, TypeError, ImportError) as error:
        text = f"torch {torch.__version__} and numpy {np.__version__}: {first_line(error)}"
        advice = "they were built for different versions: pip install --upgrade torch numpy; "
        yield Finding("numpy", text, advice + "a torch before 2.3 needs 'numpy<2'", broken=True)


def check_device() -> Iterator[Finding]:
    """Yield the device that networks run on, and why an existing GPU is not used."""
    import torch

    from faceqan_toolkit.hardware import resolve_device

    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    text = f"{resolve_device('auto')} (--device auto); CUDA: {', '.join(gpus) or 'no GPU seen'}"
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    why = (
        "this torch is built for CPUs: install one for CUDA, as the page 'Get Started' of PyTorch "
        "says" if torch.version.cuda is None
        else f"torch, built for CUDA {torch.version.cuda}, sees no GPU: run nvidia-smi; the driver "
        "may be too old, or CUDA_VISIBLE_DEVICES hides it"
    )  # fmt: skip
    advice = f"an NVIDIA driver is here, but {why}" if driver and not gpus else ""
    yield Finding("device", text, advice)
    yield Finding("threads", str(torch.get_num_threads()))


def check_weights() -> Iterator[Finding]:
    """Yield whether the weights of all networks exist and are unchanged."""
    from faceqan_toolkit.detection.mtcnn_networks import load_weights
    from faceqan_toolkit.detection.yunet import SHA256, WEIGHTS
    from faceqan_toolkit.errors import FaceQANError
    from faceqan_toolkit.models.load import BUILT_IN, find_model
    from faceqan_toolkit.models.registry import HEADS, added_names
    from faceqan_toolkit.models.weights import read_weights

    def state(label: str, what: str, load: Callable[..., Any], *arguments: str) -> Finding:
        try:
            title = getattr(load(*arguments), "title", "")  # of a model
        except FaceQANError as error:
            return Finding(label, f"{what}: {error}", broken=True)
        return Finding(label, f"{what}: {f'{title}; ' if title else ''}weights verified")

    def mtcnn() -> None:
        for network in ("pnet", "rnet", "onet"):
            load_weights(network, "cpu")

    for name in (BUILT_IN, *added_names()):
        yield state("model", name, lambda name: find_model(name).load(), name)
    for name, head in HEADS.items():
        yield state("weights", f"head of {name}", read_weights, head.weights, head.sha256)
    yield state("weights", "detector mtcnn", mtcnn)
    yield state("weights", "detector yunet", read_weights, WEIGHTS, SHA256)


def check_folders() -> Iterator[Finding]:
    """Yield whether the folders that are written to are writable, and their free space."""
    from faceqan_toolkit.models.registry import FOLDER_VARIABLE, user_folder

    for what, folder, advice in (
        ("current folder", Path.cwd(), "give -o a folder elsewhere"),
        ("temporary files", Path(tempfile.gettempdir()), "TMPDIR=FOLDER takes another"),
        ("your models", user_folder(), f"{FOLDER_VARIABLE}=FOLDER takes another"),
    ):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        text = f"{what}: {folder}, {free / 1e9:.1f} GB free"
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            yield Finding("folder", f"{text}; cannot be written: {reason_of(error)}", advice, True)
            continue
        low = free < LOW_DISK_BYTES
        advice = f"make room: less than 1 GB is left; or {advice}" if low else ""
        yield Finding("folder", text, advice, low)


def check_extras() -> Iterator[Finding]:
    """Yield which extras are installed, and what each is for."""
    keep_onnxruntime_private()
    for extra, (modules, purpose) in EXTRAS.items():
        if not all(find_spec(module) for module in modules):
            text = f"{extra}: missing; it {purpose}: pip install 'faceqan-toolkit[{extra}]'"
            yield Finding("extra", text)
            continue
        checked = [module for module in modules if module not in NOSY]
        failed = [(module, error) for module in checked if (error := _import_error(module))]
        for module, error in failed:
            text = f"{extra}: {module} cannot be imported: {first_line(error)}"
            yield Finding("extra", text, advice_for(module, error), broken=True)
        if not failed:
            yield Finding("extra", f"{extra}: installed; it {purpose}")
