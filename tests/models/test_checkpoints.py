"""Weights files as people have them: wrapped, converted, damaged, wrong, malicious."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from faceqan_toolkit.errors import DamagedWeights, UnsafeCheckpoint, WeightsError, WrongArchitecture
from faceqan_toolkit.models.architectures import build_backbone, official
from faceqan_toolkit.models.base import Embedder
from faceqan_toolkit.models.checkpoints import (
    check_embeddings,
    load_network,
    read_state_dict,
    strip,
)
from faceqan_toolkit.models.load import load_model
from tests.models.layouts import fill, shapes
from tests.models.test_architectures import named, saved

SMALL = official("iresnet", 18, embedding_size=8)
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def original() -> State:
    """A small network's tensors; tests copy what they change."""
    return fill(shapes(build_backbone(SMALL, "meta").state_dict()))


@pytest.fixture
def state(original: State) -> State:
    return dict(original)


@pytest.fixture(scope="module")
def crops() -> Tensor:
    return torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def embedding(original: State, crops: Tensor) -> Tensor:
    return load_network(saved(original)).embedder(crops)


# wrappings


PREFIXES = [
    "", "module.", "model.", "backbone.", "module.backbone.", "net.", "features.module.",
    "module.features.", "model.module.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("place", [(), ("state_dict",), ("model",), ("a", "b", "net")])
def test_wrappings_come_off(state: State, prefix: str, place: tuple[str, ...]) -> None:
    head = {"head.kernel": torch.zeros(8, 3)}
    if prefix:
        head["fc.weight"] = torch.zeros(3, 8)  # a head by the name of one of the network's layers
    wrapped: dict[str, Any] = {**head, **named(prefix, state)}
    for key in reversed(place):
        wrapped = {key: wrapped, "epoch": 3}
    found = strip(wrapped)
    assert found.state.keys() == state.keys()
    assert all(found.state[name] is state[name] for name in state)
    assert (found.place, found.prefix) == (place, prefix)


@pytest.mark.parametrize("prefix", ["", "backbone.", "features.module.", "module.features."])
def test_magface_is_told_by_its_wrapping(state: State, prefix: str) -> None:
    loaded = load_network(saved({"state_dict": named(prefix, state)}))
    magface = "features" in prefix
    assert loaded.architecture.family == ("magface" if magface else "iresnet")
    assert loaded.embedder.family == loaded.architecture.family
    assert loaded.architecture.eps == (2e-5 if magface else 1e-5)
    norms = [one for one in loaded.embedder.modules() if isinstance(one, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {loaded.architecture.eps}
    assert loaded.embedder.normalise.reverse == magface


def test_two_networks_in_one_file(state: State) -> None:
    twice = {"model": named("backbone.", state), "ema": dict(state)}
    with pytest.raises(WrongArchitecture, match=r"model/backbone\. and ema/\(no prefix\)"):
        strip(twice)


def test_a_callers_architecture_rules(state: State) -> None:
    magface = official("magface", 18, embedding_size=8)
    loaded = load_network(saved(state), magface)
    assert loaded.architecture == magface
    assert loaded.embedder.preprocessing == magface.preprocessing
    with pytest.raises(WrongArchitecture, match=r"depth 18, 8-d; expected AdaFace IR, depth 50"):
        load_network(saved(state), official("adaface", 50))


def test_what_is_loaded(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, path)
    embedder = load_network(path.read_bytes()).embedder
    assert (embedder.name, embedder.input_size) == ("iresnet18", 112)
    assert embedder.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not embedder.training
    assert not any(weight.requires_grad for weight in embedder.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(
    state: State, dtype: torch.dtype, crops: Tensor, embedding: Tensor
) -> None:
    cast = {name: tensor.to(dtype) for name, tensor in state.items()}  # counters too
    found = load_network(saved(cast)).embedder(crops)
    assert found.dtype == torch.float32
    assert (found - embedding).norm() < 0.02 * embedding.norm()


def test_counters_may_be_missing(state: State, crops: Tensor, embedding: Tensor) -> None:
    kept = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    assert len(kept) < len(state)
    assert torch.equal(load_network(saved(kept)).embedder(crops), embedding)


def test_an_old_file_format(state: State) -> None:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=False)
    assert strip(read_state_dict(file.getvalue())).state.keys() == state.keys()


# files that do not fit


def test_missing_unexpected_and_misshapen_are_named(state: State) -> None:
    for index in range(7):
        state[f"layer1.0.se.{index}"] = torch.zeros(1)
    del state["layer2.1.conv1.weight"], state["bn2.bias"]
    state["conv1.weight"] = torch.zeros(64, 1, 3, 3)
    state["prelu.weight"] = torch.zeros(64, dtype=torch.int8)
    with pytest.raises(WrongArchitecture) as caught:
        load_network(saved(state))
    message = str(caught.value)
    assert "\n" not in message
    assert "looks like IResNet (ArcFace, CosFace, ElasticFace), depth 18, 8-d" in message
    assert "2 missing: layer2.1.conv1.weight, bn2.bias;" in message
    unexpected = ", ".join(f"layer1.0.se.{index}" for index in range(5))
    assert f"7 unexpected: {unexpected} and 2 more;" in message
    assert "conv1.weight (64, 1, 3, 3) in place of (64, 3, 3, 3)" in message
    assert "prelu.weight (64,) int8 in place of (64,)" in message


def test_unknown_depth(state: State) -> None:
    state["layer1.2.bn1.weight"] = torch.zeros(64)
    with pytest.raises(WrongArchitecture, match=r"IResNet of 3, 2, 2, 2 blocks; .* 18 has 2, 2"):
        load_network(saved(state))


@pytest.mark.parametrize(
    "strange",
    [
        nn.Sequential(nn.Linear(2, 2)).state_dict(),
        load_model("sface").state_dict(),
        {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(1)},
    ],
)
def test_unknown_networks(strange: State) -> None:
    first = next(iter(strange))
    with pytest.raises(WrongArchitecture, match=rf"its {len(strange)} tensors \({first}"):
        load_network(saved(strange))


def test_no_tensors_at_all() -> None:
    with pytest.raises(WrongArchitecture, match="holds no tensors"):
        load_network(saved({"state_dict": {"a": 1}}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(state: State, value: float) -> None:
    name = "layer3.1.bn2.running_var"
    state[name] = state[name].clone()
    state[name][3] = value
    with pytest.raises(DamagedWeights, match=rf"{name} has NaN or infinite"):
        load_network(saved(state))


def test_overflow_in_float32_is_infinite(state: State) -> None:
    state["fc.bias"] = torch.full((8,), 1e300, dtype=torch.float64)
    with pytest.raises(DamagedWeights, match=r"fc\.bias"):
        load_network(saved(state))


def test_embeddings_that_are_no_numbers(state: State) -> None:
    state["bn2.running_var"] = -torch.ones(512)
    with pytest.raises(DamagedWeights, match="embeddings are not finite"):
        load_network(saved(state))


def test_weights_that_see_nothing(state: State) -> None:
    state["fc.weight"] = torch.zeros(8, 512 * 49)
    with pytest.raises(DamagedWeights, match="equal embeddings"):
        load_network(saved(state))


class Mean(Embedder):
    """Embeds each channel's mean, correctly or in one of several wrong ways."""

    input_size = 8

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, crops: Tensor) -> Tensor:
        means = crops.mean(dim=(2, 3))
        if self.way == "flat":
            return means.reshape(1, -1)
        return means - means.mean(dim=0) if self.way == "centred" else means


def test_rows_of_a_batch_must_be_independent() -> None:
    check_embeddings(Mean("right"), 3)
    with pytest.raises(WrongArchitecture, match=r"shape \(1, 6\), expected \(2, 3\)"):
        check_embeddings(Mean("flat"), 3)
    with pytest.raises(WrongArchitecture, match="depends on the batch"):
        check_embeddings(Mean("centred"), 3)


# files that are no checkpoints


TINY = saved({"conv.weight": torch.zeros(20), "epoch": 1})
TINY_OLD = io.BytesIO()
torch.save({"conv.weight": torch.zeros(20)}, TINY_OLD, _use_new_zipfile_serialization=False)
TINY_SAFE = safetensors.torch.save({"conv.weight": torch.zeros(20)})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"conv.weight 1 2 3\n", "no checkpoint: neither safetensors nor ONNX nor written by"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no checkpoint"),
        (TINY[:100], "cut off"),
        (TINY[:-1], "cut off"),
        (TINY_OLD.getvalue()[:-1], "cut off"),
        (TINY_SAFE[:-1], "cut off"),
        (saved([torch.zeros(2)]), "no state dict, but a list"),
        (saved(torch.zeros(2)), "no state dict, but a Tensor"),
    ],
    # bytes differ from process to process
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)
def test_files_that_are_no_checkpoints(content: bytes, said: str) -> None:
    with pytest.raises(DamagedWeights, match=said) as caught:
        load_network(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_plain_pickle_is_refused(protocol: int) -> None:
    content = pickle.dumps({"conv.weight": [1.0]}, protocol)
    with pytest.raises(UnsafeCheckpoint, match="a plain pickle, which could run code, is refused"):
        load_network(content)


@given(st.sampled_from([TINY, TINY_OLD.getvalue(), TINY_SAFE]), st.data())
@settings(max_examples=150, deadline=None)
def test_damage_is_an_error_of_ours_or_harmless(content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        strip(read_state_dict(bytes(damaged)))
    except WeightsError as error:
        assert str(error)  # noqa: PT017
    else:
        pytest.fail("there is no known network in it")


class Trap:
    """Leaves a folder behind when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("beside_a_stand_in", [True, False])
def test_code_in_a_pickle_does_not_run(
    state: State, tmp_path: Path, new_format: bool, beside_a_stand_in: bool
) -> None:
    trap = tmp_path / "trap"
    held: dict[str, Any] = {"state_dict": state}
    if beside_a_stand_in:
        held["args"] = argparse.Namespace(arch="iresnet18")
    file = io.BytesIO()
    torch.save({**held, "trap": Trap(trap)}, file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UnsafeCheckpoint, match=r"run (posix|nt)\.mkdir; .*safetensors") as caught:
        load_network(file.getvalue())
    assert "\n" not in str(caught.value)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()  # it would have


def test_a_whole_pickled_model_is_refused(state: State) -> None:
    with pytest.raises(UnsafeCheckpoint, match=r"torch\.nn\.modules\.linear\.Linear"):
        load_network(saved(nn.Linear(2, 2)))


def test_arguments_beside_the_tensors_are_harmless(state: State) -> None:
    arguments = argparse.Namespace(arch="iresnet18", paths=["a"])
    found = strip(read_state_dict(saved({"state_dict": state, "args": arguments})))
    assert found.state.keys() == state.keys()


def test_lightning_is_not_imported() -> None:
    from tests.models.test_architectures import lightning

    found = read_state_dict(lightning({"a": torch.ones(1)}))
    assert found["state_dict"]["model.a"] == 1
    assert "pytorch_lightning" not in sys.modules
