"""What doctor finds in broken environments, each made for the test."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from faceqan_toolkit.cli import doctor
from faceqan_toolkit.cli.doctor import Finding, advice_for
from faceqan_toolkit.detection import mtcnn_networks
from faceqan_toolkit.models import weights
from tests.conftest import HANG
from tests.test_docs_commands import ROOT, tomllib

Usage = namedtuple("Usage", "total used free")
SWIFT = (
    "import faceqan_toolkit.cli.doctor as d; d.check_weights = d.check_folders = lambda: iter(())"
)
"""Leaves out what takes seconds and is not asked for."""


def broken(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.text: finding.advice for finding in findings if finding.broken}


def run_doctor(stubs: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run doctor in a process that imports from a folder of stubs first."""
    program = f"import sys; sys.path.insert(0, {str(stubs)!r})\n{SWIFT}\n{code}\n"
    program += "from faceqan_toolkit.cli import cli; cli(['doctor'])"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip


def stub(folder: Path, module: str, raises: str) -> None:
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text(f"raise {raises}\n", encoding="utf-8")


def test_every_broken_import_is_told_at_once_with_what_to_do(tmp_path: Path) -> None:
    mismatch = "operator torchvision::nms does not exist"
    stub(tmp_path, "torchvision", f"RuntimeError('{mismatch}')")
    stub(tmp_path, "cv2", "ImportError('libGL.so.1: cannot open shared object file')")
    stub(tmp_path, "scipy", "ValueError('numpy.dtype size changed, may indicate incompatibility')")
    stub(tmp_path, "pillow_heif", "ImportError('DLL load failed while importing _pillow_heif')")
    old = tmp_path / "numpy-1.20.0.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Name: numpy\nVersion: 1.20.0\n", encoding="utf-8")
    done = run_doctor(tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for expected in (
        f"cannot be imported: {mismatch}",
        "pip install --upgrade --force-reinstall torch torchvision",
        "a library of the system is missing, or opencv-python-headless is for another system",
        "pip install --upgrade numpy scipy",
        "numpy                   1.20.0",
        "this version is not supported: pip install 'numpy",
        "heif: pillow_heif cannot be imported: DLL load failed",
        "onnx: onnx2torch cannot be imported: operator",  # it imports torchvision
        "6 things are broken",
    ):
        assert expected in done.stdout, done.stdout


def test_doctor_works_without_torch(tmp_path: Path) -> None:
    stub(tmp_path, "torch", "OSError('libcudart.so.13: cannot open shared object file')")
    done = run_doctor(tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "a library of the system is missing, or torch is for another system" in done.stdout
    assert "device      cannot be checked: libcudart.so.13" in done.stdout
    assert "extra       evaluate" in done.stdout


def test_other_commands_name_doctor_when_a_package_is_missing(tmp_path: Path) -> None:
    stub(tmp_path, "pyarrow", "ImportError('No module named pyarrow')")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    program += "from faceqan_toolkit.cli import cli; cli(['rank', '.'])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: a package is missing or broken: No module named pyarrow; "
        "`faceqan-toolkit doctor` says what to do\n"
    )


def test_missing_packages_and_extras(monkeypatch) -> None:
    version, find = doctor.version, doctor.find_spec

    def lacking(name: str) -> str:
        if name == "rich":
            raise doctor.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", lacking)
    monkeypatch.setattr(
        doctor, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    (found,) = broken(doctor.check_packages()).items()
    assert found[0].split() == ["rich", "missing"]
    assert found[1].startswith("pip install 'rich>=")
    extras = {finding.text for finding in doctor.check_extras()}
    assert (
        "openvino: missing; it scores faster on x86-64 CPUs: "
        "pip install 'faceqan-toolkit[openvino]'" in extras
    )


def test_a_package_that_nobody_installed(monkeypatch) -> None:
    def missing(name: str) -> Any:
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", missing)
    assert broken(doctor.check_packages()) == {
        "faceqan-toolkit is not installed": "from its checkout: python -m pip install -e ."
    }


def test_every_extra_for_users_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"]) - {"dev", "docs"}


def test_only_what_this_python_needs_is_demanded(monkeypatch) -> None:
    wanted = ["not-here>=2; python_version < '3'", "neither; extra == 'heif'", "torch<=99.0.1"]
    monkeypatch.setattr(doctor, "requires", lambda name: [*wanted, "numpy<2", "no-such>=1"])
    assert broken(doctor.check_packages()) == {
        f"{'numpy':<24}{np.__version__}": "this version is not supported: pip install 'numpy<2'",
        f"{'no-such':<24}missing": "pip install 'no-such>=1'",
    }


def test_numpy_that_torch_was_not_built_for(monkeypatch) -> None:
    def refuse(array: object) -> None:
        raise RuntimeError("Numpy is not available")

    assert broken(doctor.check_numpy_in_torch()) == {}
    monkeypatch.setattr(torch, "from_numpy", refuse)
    ((text, advice),) = broken(doctor.check_numpy_in_torch()).items()
    assert text == f"torch {torch.__version__} and numpy {np.__version__}: Numpy is not available"
    assert "pip install --upgrade torch numpy" in advice


def test_a_gpu_that_torch_does_not_see(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    if not Path("/proc/driver/nvidia/version").exists():
        assert next(doctor.check_device()).advice == ""
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "built for CUDA 13.0, sees no GPU" in next(doctor.check_device()).advice
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "this torch is built for CPUs" in next(doctor.check_device()).advice


def test_full_and_unwritable_folders(monkeypatch, tmp_path: Path) -> None:
    assert broken(doctor.check_folders()) == {}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 4 * 10**8))
    found = broken(doctor.check_folders())
    assert len(found) == 3
    assert all("0.4 GB free" in text for text in found)
    assert all(advice.startswith("make room: less than 1 GB is left") for advice in found.values())

    def refuse(dir: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setenv("FACEQAN_TOOLKIT_MODELS", str(tmp_path / "not" / "there"))
    found = broken(doctor.check_folders())
    assert all("cannot be written: Read-only file system" in text for text in found)
    (advice,) = (advice for text, advice in found.items() if "your models" in text)
    assert advice == "FACEQAN_TOOLKIT_MODELS=FOLDER takes another"


@pytest.mark.parametrize("file", ["sface_instant.safetensors", "yunet.onnx"])
@pytest.mark.parametrize("damage", ["missing", "pointer"])
def test_weights_that_are_missing_or_damaged(file: str, damage: str, monkeypatch, tmp_path) -> None:
    find = weights.weights_path

    def damaged(name: str) -> Path:
        if name != file:
            return find(name)
        path: Path = tmp_path / name
        if damage == "pointer":
            path.write_text("version https://git-lfs.example/spec/v1\n", encoding="utf-8")
        return path

    monkeypatch.setattr(weights, "weights_path", damaged)
    ((text, _),) = broken(doctor.check_weights()).items()
    assert text.startswith("head of sface:" if "sface" in file else "detector yunet:")
    expected = (
        "cannot be read: No such file" if damage == "missing" else "is damaged or another file"
    )
    assert expected in text
    assert damage == "missing" or weights.INSTALL_AGAIN in text


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off", "tampered"])
def test_mtcnns_weights(content: bytes | str | None, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "pnet.pt"
    if content == "tampered":
        import facenet_pytorch

        original = Path(facenet_pytorch.__file__).parent / "data/pnet.pt"
        torch.save({k: 0.97 * v for k, v in torch.load(original, weights_only=True).items()}, file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    spec = namedtuple("Spec", "submodule_search_locations")([str(tmp_path)])
    monkeypatch.setattr(mtcnn_networks, "find_spec", lambda name: spec)
    ((text, _),) = broken(doctor.check_weights()).items()
    assert text.startswith("detector mtcnn: MTCNN's weights")
    assert ("are damaged or of another release" in text) == (content is not None)
    assert mtcnn_networks.INSTALL_AGAIN in text


def test_a_check_that_fails_itself_stops_no_other(monkeypatch) -> None:
    def fails() -> Iterator[Finding]:
        raise ZeroDivisionError
        yield

    fails.__name__ = "check_device"
    monkeypatch.setattr(doctor, "check_device", fails)
    monkeypatch.setattr(doctor, "check_weights", lambda: iter(()))
    findings = list(doctor.diagnose())
    assert (
        Finding(
            "device",
            "cannot be checked: ZeroDivisionError",
            "mend what is reported above first",
            True,
        )
        in findings
    )
    assert findings[-1].label == "extra"


def test_advice_for_what_is_unknown() -> None:
    assert advice_for("rich", AttributeError("x")) == "pip install --force-reinstall rich"
