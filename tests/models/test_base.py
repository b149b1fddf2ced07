"""Embeddings, preprocessing, blocks of crops, and lengths of embeddings."""

from __future__ import annotations

import gc
import io
import warnings
import weakref
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor, nn

from faceqan_toolkit.errors import FaceQANError, SettingsError
from faceqan_toolkit.models.base import (
    BackboneEmbedder,
    Normalise,
    Preprocessing,
    arithmetic,
    check_batch,
    has_equal_lengths,
)
from faceqan_toolkit.models.checkpoints import load_onnx
from faceqan_toolkit.models.load import load_model
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.pipeline import Pipeline
from faceqan_toolkit.quality.faceqan import FaceQAN
from faceqan_toolkit.quality.norm import EmbeddingNorm
from faceqan_toolkit.quality.registry import make_estimator
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource, Pixels
from tests.conftest import DATA, read_rgb
from tests.models.test_onnx_model import RAW, SIZE, Tiny
from tests.toys import SIZE as TOY_SIZE
from tests.toys import Toy

NAMES = ("astronaut", "astronaut_blur3", "astronaut_dark", "astronaut_occluded", "grey")
NUMBER = 11  # two full blocks and a short one


def random_crops() -> Pixels:
    return np.random.default_rng(0).integers(
        0, 256, (NUMBER, TOY_SIZE, TOY_SIZE, 3), dtype=np.uint8
    )


def test_embeddings_are_the_networks(crop: Pixels) -> None:
    network = load_model("sface")
    crops = [crop, crop[:, ::-1].copy(), *(read_rgb(DATA / f"{name}.png") for name in NAMES)]
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        plain, mirrored = network(batch).numpy(), network(batch.flip(3)).numpy()
    found = network.embed(crops, device="cpu")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain, atol=2e-3)
    both = network.embed(crops, flip=True, device="cpu")
    np.testing.assert_allclose(both, plain + mirrored, atol=4e-3)
    assert np.array_equal(network.embed(np.stack(crops), device="cpu"), found)
    assert np.array_equal(network.embed(crops[2:3], device="cpu"), found[2:3])
    assert network.embed([], device="cpu").shape == (0, 128)


def test_the_model_stays_as_it_was() -> None:
    network = Toy()
    keys = list(network.state_dict())
    expected = network.embed(random_crops(), device="cpu")
    assert list(network.state_dict()) == keys
    assert len(list(network.children())) == len(list(Toy().children()))
    assert np.array_equal(deepcopy(network).embed(random_crops(), device="cpu"), expected)
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


class Hungry(Toy):
    """Runs out of memory on more than `limit` crops at once."""

    limit = 1

    def forward(self, crops: Tensor) -> Tensor:
        if len(crops) > self.limit:
            raise torch.OutOfMemoryError("no memory left")
        return super().forward(crops)


def test_out_of_memory_halves_the_block() -> None:
    found = Hungry().embed(random_crops(), device="cpu")
    np.testing.assert_allclose(found, Toy().embed(random_crops(), device="cpu"), rtol=1e-4)
    none = Hungry()
    none.limit = 0
    with pytest.raises(FaceQANError, match="not enough memory on cpu for a single face"):
        none.embed(random_crops(), device="cpu")


def test_unknown_devices() -> None:
    with pytest.raises(SettingsError, match="toaster"):
        Toy().embed(random_crops(), device="toaster")


CASES = [
    Preprocessing(),
    Preprocessing("BGR"),
    Preprocessing("BGR", mean=0.0, std=255.0),
    Preprocessing("RGB", mean=127.5, std=128.0),
    Preprocessing("RGB", mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)),
    Preprocessing("BGR", mean=(103.5, 116.3, 123.7), std=(57.4, 57.1, 58.4)),
]


@pytest.mark.parametrize("preprocessing", CASES)
def test_normalised_as_by_hand(preprocessing: Preprocessing) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 7, 7, 3), dtype=np.uint8)
    channels = pixels[..., ::-1] if preprocessing.channels == "BGR" else pixels
    expected = (channels - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    crops = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    found = Normalise(preprocessing)(crops).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_both_orders_of_unequal_channels_agree() -> None:
    crops = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    rgb, bgr = (Normalise(preprocessing)(crops) for preprocessing in CASES[-2:])
    assert torch.equal(rgb, bgr.flip(1))


def test_constants_are_no_part_of_a_checkpoint() -> None:
    assert not Normalise(Preprocessing()).state_dict()


@pytest.mark.parametrize(
    ("wrong", "named"), [({"channels": "rgb"}, "channels"), ({"std": (1.0, 0.0, 1.0)}, "std")]
)
def test_nonsense_is_refused(wrong, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Preprocessing(**wrong)


GOOD = np.zeros((TOY_SIZE, TOY_SIZE, 3), np.uint8)
EXPECTED = r"expected a list of 8x8x3 uint8 RGB crops, or an array of shape \(N, 8, 8, 3\)"
MISTAKES = {
    "one crop": (GOOD, rf"a single crop, an array of shape \(8, 8, 3\); {EXPECTED}.*\[crop\]"),
    "one channel": (np.zeros((2, 8), np.uint8), rf"an array of shape \(2, 8\); {EXPECTED}"),
    "text": ("crop.png", f"got a str; {EXPECTED}"),
    "bytes": (b"\x89PNG", f"got a bytes; {EXPECTED}"),
    "generator": (iter([GOOD]), f"got a list_iterator; {EXPECTED}"),
    "tensor": (torch.zeros(1, 3, 8, 8), f"got a Tensor; {EXPECTED}"),
    "files": ([GOOD, "crop.png"], f"crop 1 is a str; {EXPECTED}"),
    "floats": (
        [GOOD / 255],
        r"crop 0 has shape \(8, 8, 3\) and type float64; .*astype\(np.uint8\)",
    ),
    "wrong size": ([np.zeros((9, 8, 3), np.uint8)], "crop 0 has shape .9, 8, 3.*resize it to 8x8"),
    "channels first": (np.zeros((2, 3, 8, 8), np.uint8), "crop 0 has shape .3, 8, 8.*uint8"),
    "grey": ([np.zeros((8, 8), np.uint8)], rf"shape \(8, 8\) and type uint8; {EXPECTED}$"),
}


@pytest.mark.parametrize(("crops", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told(crops, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_batch(crops, TOY_SIZE)


@pytest.mark.parametrize("crops", [[], [GOOD], (GOOD, GOOD), np.zeros((2, 8, 8, 3), np.uint8)])
def test_batches(crops) -> None:
    check_batch(crops, TOY_SIZE)


def test_models_and_estimators_share_the_check() -> None:
    for use in (
        lambda crops: Toy().embed(crops, device="cpu"),
        FaceQAN(Toy(), device="cpu", backend="torch").score,
    ):
        with pytest.raises(SettingsError, match=EXPECTED):
            use(GOOD)


@pytest.mark.parametrize(("precision", "rounded"), [("float32", False), ("tf32", True)])
def test_precision_is_what_it_says_and_nobody_else_is_touched(precision: str, rounded) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic
    with arithmetic(torch.device("cuda"), precision):
        assert cudnn.allow_tf32 is matmul.allow_tf32 is rounded
        assert cudnn.deterministic
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic) == before
    with pytest.raises(RuntimeError, match="full"), arithmetic(torch.device("cuda"), precision):
        raise RuntimeError("full")
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic) == before


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
@pytest.mark.parametrize(
    "opset", [13, *(pytest.param(opset, marks=pytest.mark.slow) for opset in (11, 18))]
)
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
