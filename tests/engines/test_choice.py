"""How many processes a run gets, and where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from faceqan_toolkit.engines import choice
from faceqan_toolkit.engines.choice import make_engine, worker_devices
from faceqan_toolkit.engines.processes import ProcessEngine, worker_bytes
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.job import process_photos
from faceqan_toolkit.models.load import find_model
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.settings import Settings
from tests.conftest import SAMPLES

GB = 1_000_000_000


@pytest.fixture(autouse=True)
def machine(monkeypatch) -> None:
    """Eight cores, 64 GB, no GPU."""
    monkeypatch.setattr(choice, "usable_cores", lambda: 8)
    monkeypatch.setattr(choice, "usable_memory", lambda: 64 * GB)
    monkeypatch.setattr(choice, "may_have_gpu", lambda: True)
    gpus(monkeypatch, 0)


def gpus(monkeypatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def devices(photos: int, **options) -> list[str]:
    return worker_devices(Settings(**options), photos)


@pytest.mark.parametrize(
    ("options", "photos", "number"),
    [
        ({}, 1000, 8), ({}, 16, 8), ({}, 7, 3), ({}, 1, 1), ({}, 0, 1),
        ({"preset": "fast"}, 16, 2), ({"preset": "instant"}, 64, 2),
        ({"task": "detect"}, 64, 2), ({"task": "align"}, 31, 1),
        ({"workers": 1}, 1000, 1), ({"workers": 20}, 1000, 20), ({"workers": 3}, 2, 2),
    ],
    ids=str,
)  # fmt: skip
def test_processes_on_a_cpu(options, photos: int, number: int) -> None:
    assert devices(photos, **options) == devices(photos, device="cpu", **options)
    assert devices(photos, **options) == ["cpu"] * number


def test_memory_limits_them(monkeypatch) -> None:
    monkeypatch.setattr(choice, "usable_memory", lambda: 4 * GB)
    assert devices(1000) == ["cpu"] * 2
    assert devices(1000, workers=5) == ["cpu"] * 5
    monkeypatch.setattr(choice, "usable_memory", lambda: GB)
    assert devices(1000) == ["cpu"]
    monkeypatch.setattr(choice, "usable_memory", lambda: None)
    assert devices(1000) == ["cpu"] * 8


def test_one_process_a_gpu(monkeypatch) -> None:
    gpus(monkeypatch, 3)
    every = ["cuda:0", "cuda:1", "cuda:2"]
    assert devices(1000) == devices(1000, device="cuda") == every
    assert devices(2) == every[:2]
    assert devices(1000, device="cuda:1") == ["cuda:1"]
    assert devices(1000, device="cuda:1", workers=2) == ["cuda:1"] * 2
    assert devices(1000, workers=4) == [*every, "cuda:0"]
    assert devices(1000, device="cpu") == ["cpu"] * 8
    with pytest.raises(SettingsError, match="3 CUDA device"):
        devices(1000, device="cuda:3")


def test_devices_that_are_not_there() -> None:
    with pytest.raises(SettingsError, match="0 CUDA device"):
        devices(1000, device="cuda")


def test_one_process_too_does_its_work_apart() -> None:
    engine = make_engine(Settings(device="cpu"), 1, "abc")
    assert isinstance(engine, ProcessEngine)
    assert (engine.devices, engine.preparers) == (("cpu",), 1)
    assert engine.weights_sha256 == "abc"


def test_cores_prepare_for_gpus(monkeypatch) -> None:
    assert preparers(1000, device="cpu") == 1
    gpus(monkeypatch, 1)
    assert preparers(1000) == 7
    assert preparers(1000, workers=2) == 3
    assert preparers(1000, workers=8) == 1
    gpus(monkeypatch, 3)
    assert preparers(1000) == 1


def preparers(photos: int, **options) -> int:
    engine = make_engine(Settings(**options), photos)
    assert isinstance(engine, ProcessEngine)
    return engine.preparers


def test_torch_is_not_asked_where_there_can_be_no_gpu(monkeypatch) -> None:
    gpus(monkeypatch, 2)
    monkeypatch.setattr(choice, "may_have_gpu", lambda: False)
    assert devices(1000) == ["cpu"] * 8
    assert devices(1000, device="cuda") == ["cuda:0", "cuda:1"]


def test_larger_models_take_more_memory(monkeypatch, tmp_path: Path) -> None:
    """IResNet-50 and 100 took 2.3 and 3.0 GB."""
    for size, least, most in ((174_656_457, 2.3, 2.6), (261_177_093, 3.0, 3.3)):
        file = tmp_path / "network.pth"
        with file.open("wb") as weights:
            weights.truncate(size)
        assert least * GB < worker_bytes(Settings(model=str(file))) < most * GB
    assert 1.3 * GB < worker_bytes(Settings()) < 1.5 * GB
    assert worker_bytes(Settings(task="detect")) < worker_bytes(Settings())
    monkeypatch.setattr(choice, "usable_memory", lambda: 16 * GB)
    assert devices(1000) == ["cpu"] * 8
    assert devices(1000, model=str(file)) == ["cpu"] * 5


def test_a_runs_workers_are_told_its_weights(monkeypatch, tmp_path: Path) -> None:
    class Told(Exception):
        pass

    def engine(devices: list[str], **options: object) -> None:
        raise Told(options["weights_sha256"])

    monkeypatch.setattr(choice, "ProcessEngine", engine)
    settings = Settings(preset="instant", device="cpu")
    with pytest.raises(Told, match=f"^{find_model('sface').sha256}$"):
        process_photos(find_photos([str(SAMPLES)]), tmp_path / "run", settings)
