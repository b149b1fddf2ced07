"""Any face recognition network that comes as an ONNX file, as a differentiable torch module."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faceqan_toolkit.embedders.base import BackboneEmbedder
from faceqan_toolkit.embedders.checkpoints import check_embeddings
from faceqan_toolkit.embedders.preprocessing import Preprocessing
from faceqan_toolkit.errors import (
    FaceQANError,
    MissingDependency,
    UnsupportedGraph,
    WrongArchitecture,
)

if TYPE_CHECKING:
    from onnx import ModelProto

    from faceqan_toolkit.embedders.onnx_source import Entry

TOLERANCE = 1e-4
"""Longest difference between our embedding and onnxruntime's, relative to its length."""

LEAST_LIKENESS = 0.5
"""Least cosine between embeddings with and without the rounding of activations."""

STEP = 1e-8
"""Of the finite difference, in [0, 1] units of a crop, in double precision. With 1e-6 so many units
bend between the two points that SFace's difference is off by a percent."""

GRADIENT_TOLERANCE = 1e-3
"""Largest difference between a slope by the gradient and one by a finite difference, relative to
the gradient's length."""


@dataclass(frozen=True)
class OnnxModel:
    """A network from an ONNX file and what is known of it.

    Attributes:
        embedder: on the CPU in evaluation mode, float32, no weight asking for gradients.
        embedding_size: D.
        title: one line for people.
        assumed: what of the preprocessing the file does not tell and nobody said: of "channels",
            "mean", "std", "input_size" and "template".
        notes: what else was decided, a line each, for people.
    """

    embedder: BackboneEmbedder
    embedding_size: int
    title: str
    assumed: tuple[str, ...]
    notes: tuple[str, ...]


def load_onnx(content: bytes, preprocessing: Preprocessing | None = None) -> OnnxModel:
    """Return the network that an ONNX file's content holds, checked.

    Its embeddings of two crops are those that onnxruntime computes (within 1e-4 of their length),
    no crop's embedding depends on the batch, and the gradient with respect to the crops agrees
    with a finite difference. Quantised weights are dequantised; of quantised activations the
    range stays, and the rounding, which has no gradient, is left out.

    Args:
        content: one graph with its weights; its input is pictures of S x S pixels, and one of
            its outputs an embedding for each.
        preprocessing: what the graph has to be given. None gives pixels in 0..255 or in 0..1 to
            a graph that scales them itself, and (pixel - 127.5) / 127.5 to any other; RGB.

    Raises:
        MissingDependency: the extra `onnx` is not installed.
        DamagedWeights: no ONNX file, cut off, or NaN or infinite weights.
        MissingWeights: its weights are in other files.
        WrongArchitecture: inputs or outputs are not those of a face recogniser, or the
            preprocessing is for another size.
        UnsupportedGraph: it cannot be converted, or what it became computes something else.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import onnx  # noqa: F401
            import onnx2torch  # noqa: F401
            import onnxruntime
        except ImportError as error:
            raise MissingDependency(
                "an ONNX model needs an extra: pip install 'faceqan-toolkit[onnx]'"
            ) from error
        onnxruntime.disable_telemetry_events()
        try:
            return _load(content, preprocessing)
        except FaceQANError:
            raise
        except Exception as error:  # noqa: BLE001 - three libraries read what a stranger wrote
            from faceqan_toolkit.embedders.onnx_session import first_line

            raise UnsupportedGraph(f"cannot be converted: {first_line(error)}") from error


def _load(content: bytes, preprocessing: Preprocessing | None) -> OnnxModel:
    from faceqan_toolkit.embedders import onnx_rewrites as rewrites
    from faceqan_toolkit.embedders.onnx_convert import to_torch
    from faceqan_toolkit.embedders.onnx_session import Session
    from faceqan_toolkit.embedders.onnx_source import (
        check_weights,
        find_entry,
        find_output,
        read_model,
    )

    model = read_model(content)
    title = " ".join(filter(None, ["ONNX file", model.producer_name and f"({model.producer_name})"]))
    rewrites.use_float32(model)
    rewrites.prune_inputs(model)
    rewrites.mend_mxnet(model)
    model = rewrites.renew_ancient(model)
    check_weights(model)
    entry = find_entry(model, preprocessing.input_size if preprocessing else None)
    original = Session(model)
    outputs = original.run_crops(_crops(entry.size).numpy(), entry)
    output = find_output(outputs)
    notes = [f"its output {name} is not used" for name in outputs if name != output]

    rewrites.fold_constants(model, lambda part, names: Session(part).run({}, names))
    model = rewrites.to_opset(model)
    rewrites.fill_bounds(model)
    rewrites.set_ends(model, output, entry.size, entry.channels_last)
    first = replace(entry, name=model.graph.input[0].name, channels_last=False)
    quantised = rewrites.pass_activations(model)
    if quantised:
        notes.append("the rounding of its activations is left out, for it has no gradient")
        unrounded = Session(model)
    rewrites.skip_idle(model)
    shapes = _shapes(model, first)
    rewrites.pad_explicitly(model, shapes)
    rewrites.free_batch(model, shapes, entry.batch)
    rewrites.name_nodes(model)

    chosen, assumed = _choose_preprocessing(model, entry, preprocessing)
    embedder = BackboneEmbedder(to_torch(model), chosen)
    embedder.name, embedder.sha256 = "onnx", hashlib.sha256(content).hexdigest()
    embedder.eval().requires_grad_(False)
    pictures = embedder.normalise(_crops(entry.size)).numpy()
    expected = torch.from_numpy(original.run_crops(pictures, entry, [output])[output])
    if quantised:
        rounded, output = expected, model.graph.output[0].name
        expected = torch.from_numpy(unrounded.run_crops(pictures, first, [output])[output])
        likeness = F.cosine_similarity(rounded, expected, dim=1).min().item()
        print("likeness", likeness)
    check_embeddings(embedder, expected.shape[1])
    _compare(embedder, expected)
    _check_gradient(embedder)
    size = expected.shape[1]
    return OnnxModel(embedder, size, f"{title}, {size}-d", assumed, tuple(notes))


def _crops(size: int) -> Tensor:
    """Return two crops of noise, (2, 3, S, S) in [0, 1]."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def _shapes(model: ModelProto, entry: Entry) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the values that rewriting asks for."""
    from faceqan_toolkit.embedders.onnx_rewrites import shapes_needed, with_outputs
    from faceqan_toolkit.embedders.onnx_session import Session

    picture = np.zeros((entry.batch, 3, entry.size, entry.size), np.float32)
    shapes = {entry.name: picture.shape}
    names = [name for name in shapes_needed(model) if name != entry.name]
    if names:
        values = Session(with_outputs(model, names)).run({entry.name: picture}, names)
        shapes |= {name: value.shape for name, value in values.items()}
    return shapes


def _choose_preprocessing(
    model: ModelProto, entry: Entry, given: Preprocessing | None
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return what the graph has to be given, and what of that is a guess."""
    if given is not None:
        if given.input_size != entry.size:
            raise WrongArchitecture(
                f"takes {entry.size}x{entry.size} pixels; its preprocessing makes "
                f"{given.input_size}x{given.input_size}"
            )
        return given, ()
    assumed = ["channels"]
    highest = _own_range(model, entry)
    if highest:
        mean, std = 0.0, 255 / highest
    else:
        mean, std = 127.5, 127.5
        assumed += ["mean", "std"]
    if not entry.sized:
        assumed.append("input_size")
    template = "arcface"
    if entry.size != 112:
        template = "box"
        assumed.append("template")
    return Preprocessing("RGB", mean, std, entry.size, template), tuple(assumed)


def _own_range(model: ModelProto, entry: Entry) -> int | None:
    """Return the highest value of a pixel, 255 or 1, for a graph that scales pixels itself.

    The pixel value it maps to zero tells: it lies about the middle of the range, or at its lower
    end.
    """
    from faceqan_toolkit.embedders.onnx_rewrites import affine_head, with_outputs
    from faceqan_toolkit.embedders.onnx_session import Session

    head = affine_head(model)
    if head == model.graph.input[0].name:
        return None
    session = Session(with_outputs(model, [head]))
    name, shape = model.graph.input[0].name, (entry.batch, 3, entry.size, entry.size)
    black = session.run({name: np.zeros(shape, np.float32)}, [head])[head]
    slope = session.run({name: np.ones(shape, np.float32)}, [head])[head] - black
    if not (slope > 0).all():
        return None
    middle = -black / slope
    if middle.min() >= 0 and 1 < middle.max() < 255:
        return 255
    if middle.min() > 0 and middle.max() <= 1:
        return 1
    return 255 if (middle == 0).all() and slope.max() < 0.1 else None


def _compare(embedder: BackboneEmbedder, expected: Tensor) -> None:
    """Make sure that a batch gives what onnxruntime computes for each crop alone."""
    with torch.no_grad():
        found = embedder(_crops(embedder.input_size))
    difference = ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item()
    if not difference <= TOLERANCE:
        raise UnsupportedGraph(
            f"its embeddings differ from onnxruntime's by {difference:.1e} of their length"
        )


def _check_gradient(embedder: BackboneEmbedder) -> None:
    """Compare the slope along a random direction with a finite difference."""
    generator = torch.Generator().manual_seed(1)
    crop = _crops(embedder.input_size)[:1].double().requires_grad_()
    direction = torch.randn(crop.shape, generator=generator, dtype=torch.double)
    embedder.double()
    try:
        embedding = embedder(crop)
        weights = torch.randn(embedding.shape, generator=generator, dtype=torch.double)
        (gradient,) = torch.autograd.grad((embedding * weights).sum(), crop)
        with torch.no_grad():
            ahead, behind = (embedder(crop + sign * STEP * direction) for sign in (1, -1))
    finally:
        embedder.float()
    if not gradient.any():
        raise UnsupportedGraph("no gradient reaches the crop: something in it rounds or compares")
    found = (gradient * direction).sum()
    expected = ((ahead - behind) * weights).sum() / (2 * STEP)
    if not abs(found - expected) <= GRADIENT_TOLERANCE * gradient.norm():
        raise UnsupportedGraph(
            f"its gradient is wrong: a slope of {found:.4g} in place of {expected:.4g}"
        )
