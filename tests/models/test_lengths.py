"""Models that divide embeddings by their length: told, and the length taken where it is given."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor, nn

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.models.base import BackboneEmbedder, has_equal_lengths
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.models.onnx import load_onnx
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.quality.norm import EmbeddingNorm
from faceqan_toolkit.quality.registry import make_estimator
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Pixels
from tests.models.test_onnx_model import RAW, SIZE, Tiny

NORM = Settings(method="norm", device="cpu")


class Ending(nn.Module):
    """A small network and what it ends with."""

    def __init__(self, end: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.tiny, self.end = Tiny(), end

    def forward(self, crops: Tensor) -> object:
        return self.end(self.tiny(crops))


def adaface(x: Tensor) -> tuple[Tensor, Tensor]:
    """As AdaFace's official network ends."""
    norm = torch.norm(x, 2, 1, True)
    return torch.div(x, norm), norm


ENDS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "adaface": adaface,
    "normalize": lambda x: (F.normalize(x), x.norm(dim=1, keepdim=True)),
    "flat": lambda x: (F.normalize(x), x.norm(dim=1)),
    "first": lambda x: (x.norm(dim=1, keepdim=True), F.normalize(x)),
    "clamped": lambda x: (x / x.norm(dim=1, keepdim=True).clamp(min=1e-6), x.norm(dim=1)),
    "root": lambda x: (x * (x**2).sum(1, keepdim=True).rsqrt(), (x**2).sum(1).sqrt()),
}


def export(end: Callable[[Tensor], object], *, batch: int = 0, opset: int = 13) -> bytes:
    file = io.BytesIO()
    outputs = ["one", "two"] if isinstance(end(torch.rand(2, 8)), tuple) else ["one"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Ending(end).eval(), (torch.rand(batch or 1, 3, SIZE, SIZE),), file, dynamo=False,
            opset_version=opset, input_names=["input"], output_names=outputs,
            dynamic_axes=None if batch else {name: {0: "n"} for name in ("input", *outputs)},
        )  # fmt: skip
    return file.getvalue()


def crops(number: int = 4) -> Pixels:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (number, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("batch", [0, 1, 4])
@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("end", ENDS)
def test_the_length_beside_a_unit_vector_is_taken(end: str, opset: int, batch: int) -> None:
    model = load_onnx(export(ENDS[end], batch=batch, opset=opset), RAW)
    name = "one" if end == "first" else "two"
    assert model.embedder.notes == (
        f"its output {name} is the length of the embedding before normalisation",
    )
    faces = torch.rand(3, 3, SIZE, SIZE)
    expected = Tiny().eval()(faces)
    torch.testing.assert_close(model.embedder(faces), expected, rtol=1e-4, atol=1e-5)
    assert not has_equal_lengths(model.embedder)


def test_norm_then_ranks_by_it() -> None:
    found = make_estimator(NORM, load_onnx(export(adaface), RAW).embedder).score(crops())
    tiny = make_estimator(NORM, BackboneEmbedder(Tiny(), RAW)).score(crops())
    expected = [score.quality for score in tiny]
    assert [score.quality for score in found] == pytest.approx(expected, rel=1e-4)
    assert max(expected) > 1.01 * min(expected)


OTHERS: dict[str, Callable[[Tensor], object]] = {
    "none": F.normalize,
    "a score": lambda x: (F.normalize(x), x[:, :1].sigmoid()),
    "another length": lambda x: (F.normalize(x), x.norm(dim=1, keepdim=True) * 2),
    "a length of parts": lambda x: (F.normalize(x), x[:, :4].norm(dim=1)),
    "its own length": lambda x: (F.normalize(x), F.normalize(x).norm(dim=1)),
    "fixed length": lambda x: 64 * F.normalize(x),
}


@pytest.mark.parametrize("end", OTHERS)
def test_without_it_norm_is_refused(end: str) -> None:
    model = load_onnx(export(OTHERS[end]), RAW)
    told = isinstance(OTHERS[end](torch.rand(2, 8)), tuple)
    equal = "its embeddings all have the same length, so embedding_norm stays empty"
    assert model.embedder.notes == (*(("its output two is not used",) if told else ()), equal)
    assert has_equal_lengths(model.embedder)
    for use in (
        lambda: make_estimator(NORM, model.embedder),
        lambda: EmbeddingNorm(model.embedder, device="cpu"),
    ):
        with pytest.raises(
            SettingsError, match="have the same length, because the network normalises them"
        ):
            use()
    assert model.embedder.embed(crops(), device="cpu").shape == (4, 8)


def test_constants_beside_the_length() -> None:
    """Values near the end that have no row for each crop do no harm."""
    model = onnx.load_from_string(export(OTHERS["a score"]))
    graph = model.graph
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    graph.node.append(helper.make_node("Constant", [], ["factor"], value=one))
    graph.node.append(helper.make_node("Mul", ["one", "factor"], ["same"]))
    graph.output[0].name = "same"
    assert has_equal_lengths(load_onnx(model.SerializeToString(), RAW).embedder)


def test_known_networks_keep_their_lengths() -> None:
    embedder = load_model("sface")
    assert embedder.equal_lengths is False
    embedder.equal_lengths = None
    assert not has_equal_lengths(embedder)


def test_records_hold_no_length_that_says_nothing(tmp_path: Path) -> None:
    Image.fromarray(crops()[0]).save(tmp_path / "a.png")
    source = PhotoSource(str(tmp_path), "a.png", LocalFile(tmp_path / "a.png"))
    for end, known in ((F.normalize, False), (adaface, True)):
        (tmp_path / "model.onnx").write_bytes(export(end))
        settings = Settings(
            task="score", model=str(tmp_path / "model.onnx"), device="cpu", copies=1, steps=1
        )
        pipeline = Pipeline(settings)
        ((record,),) = pipeline.records([pipeline.prepare(source)])
        assert record.status == "ok"
        assert (record.embedding_norm is not None) is known
