"""Which device the networks run on."""

from __future__ import annotations

import torch

from faceqan_toolkit.errors import SettingsError


def resolve_device(name: str) -> torch.device:
    """Return the device a `--device` value means on this machine; "auto" takes the fastest.

    Raises:
        SettingsError: not a device's name, or not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(
            f"--device {name}: not a device; use auto, cpu, cuda, cuda:N or mps"
        ) from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise SettingsError(
                f"--device {name}: this machine shows torch {count} CUDA device(s); take "
                "--device auto, or ask `faceqan-toolkit doctor` why"
            )
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise SettingsError(
                f"--device {name}: torch sees no Apple GPU here; take --device auto"
            )
    elif device.type != "cpu":
        raise SettingsError(f"--device {name}: use auto, cpu, cuda, cuda:N or mps")
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse arithmetic that a device does not have.

    Raises:
        SettingsError: anything but "float32" on what is no NVIDIA GPU.
    """
    if precision != "float32" and device.type != "cuda":
        raise SettingsError(f"--precision {precision} is for --device cuda, not {device}")
