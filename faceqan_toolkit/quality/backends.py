"""Which library computes the attack's steps."""

from __future__ import annotations

import platform

import torch
from torch import nn

from faceqan_toolkit.errors import MissingDependency, SettingsError
from faceqan_toolkit.models.openvino_model import UnsupportedOperation
from faceqan_toolkit.quality.attack import Step, autograd_step
from faceqan_toolkit.quality.compiled_step import CompiledStep
from faceqan_toolkit.quality.openvino_step import OpenVINOStep
from faceqan_toolkit.quality.step_check import WrongGradient

OPENVINO_MACHINES = ("x86_64", "amd64")
"""Where OpenVINO was measured to be the faster one."""


def make_step(
    backend: str, network: nn.Module, size: int, device: torch.device
) -> tuple[str, Step]:
    """Return the name of the backend that is used, and its step.

    What "auto" means follows from the machine's kind, the installed packages and the network,
    never from a timing: a machine gives the same scores every time.

    Args:
        backend: "auto", "torch", "openvino" or "compile", which "auto" never is.
        network: frozen; maps (N, 3, S, S) crops to (N, D) embeddings.
        size: S, pixels.
        device: where the network is.

    Raises:
        SettingsError: "openvino" on another device than the CPU.
        MissingDependency: "openvino", and it is not installed.
        UnsupportedOperation: "openvino", and the network cannot be converted.
        WrongGradient: "openvino", and it does not compute what torch does.
    """
    if backend == "compile":
        return "compile", CompiledStep(network, device)
    on_cpu = device.type == "cpu"
    suitable = on_cpu and platform.machine().lower() in OPENVINO_MACHINES
    if backend == "openvino" or (backend == "auto" and suitable):
        if not on_cpu:
            raise SettingsError(f"--backend openvino is for --device cpu, not {device}")
        try:
            return "openvino", OpenVINOStep(network, size, torch.get_num_threads())
        except (MissingDependency, UnsupportedOperation, WrongGradient):
            if backend == "openvino":
                raise
    return "torch", autograd_step(network)
