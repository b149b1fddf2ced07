"""The steps from an ONNX file to a network: read, rewrite, convert, check."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from onnx import ModelProto
from torch import Tensor

from faceqan_toolkit.errors import UnsupportedGraph, WrongArchitecture
from faceqan_toolkit.models.base import BackboneEmbedder
from faceqan_toolkit.models.checkpoints import check_embeddings
from faceqan_toolkit.models.lengths import have_equal_lengths
from faceqan_toolkit.models.onnx_convert import to_torch
from faceqan_toolkit.models.onnx_lengths import find_undivided
from faceqan_toolkit.models.onnx_rewrites import (
    affine_head,
    fill_bounds,
    fold_constants,
    free_batch,
    mend_mxnet,
    name_nodes,
    pad_explicitly,
    pass_activations,
    prune_inputs,
    renew_ancient,
    set_ends,
    shapes_needed,
    skip_idle,
    to_opset,
    use_float32,
    with_outputs,
)
from faceqan_toolkit.models.onnx_session import Session
from faceqan_toolkit.models.onnx_source import (
    USUAL_SIZE,
    GraphInput,
    check_weights,
    find_input,
    find_output,
    read_model,
)
from faceqan_toolkit.models.preprocessing import Preprocessing

TOLERANCE = 1e-4
"""Longest difference between our embedding and onnxruntime's, relative to its length."""

LEAST_LIKENESS = 0.5
"""Least cosine between embeddings with and without the rounding of activations. SFace in QDQ has
0.95 on noise, far from what it was calibrated with; a mistake has about 0."""

STEP = 1e-8
"""Of the finite difference, in [0, 1] units of a crop, in double precision. With 1e-6 so many units
bend between the two points that SFace's difference is off by a percent."""

GRADIENT_TOLERANCE = 1e-3
"""Largest difference between a slope by the gradient and one by a finite difference, relative to
the gradient's length."""


NO_GRADIENT = "no gradient reaches the crop: something in it rounds or compares"


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


def read_network(content: bytes, preprocessing: Preprocessing | None) -> OnnxModel:
    """Return the network in an ONNX file; see `onnx_model.load_onnx`."""
    model = read_model(content)
    title = f"ONNX file ({model.producer_name})" if model.producer_name else "ONNX file"
    use_float32(model)
    prune_inputs(model)
    mend_mxnet(model)
    model = renew_ancient(model)
    check_weights(model)
    entry = find_input(model, preprocessing.input_size if preprocessing else None)
    original = Session(model)
    crops = _crops(entry.size).numpy()
    outputs = original.run_crops(crops, entry)
    output = find_output(outputs)
    notes = [f"its output {name} is not used" for name in outputs if name != output]
    if undivided := find_undivided(model, entry, crops, outputs, output):
        output, length = undivided
        notes.remove(f"its output {length} is not used")
        notes.append(f"its embeddings are taken with their length, which its output {length} gives")
        model = with_outputs(model, [output])
        original = Session(model)

    fold_constants(model, lambda part, names: Session(part).run({}, names))
    model = to_opset(model)
    fill_bounds(model)
    set_ends(model, output, entry.size, entry.channels_last)
    first = replace(entry, name=model.graph.input[0].name, channels_last=False)
    unrounded = None
    if pass_activations(model):
        notes.append("the rounding of its activations is left out, for it has no gradient")
        unrounded = Session(model)
    skip_idle(model)
    shapes = _shapes(model, first)
    pad_explicitly(model, shapes)
    free_batch(model, shapes, entry.batch)
    name_nodes(model)

    chosen, assumed = _choose_preprocessing(model, entry, preprocessing)
    embedder = BackboneEmbedder(to_torch(model), chosen)
    embedder.name, embedder.sha256 = "onnx", hashlib.sha256(content).hexdigest()
    embedder.eval().requires_grad_(False)
    pictures = embedder.normalise(_crops(entry.size)).numpy()
    expected = original.run_crops(pictures, entry, [output])[output]
    if unrounded is not None:
        rounded = expected
        (expected,) = unrounded.run_crops(pictures, first).values()
        _compare_rounded(torch.from_numpy(expected), torch.from_numpy(rounded))
    size = expected.shape[1]
    check_embeddings(embedder, size)
    _compare(embedder, torch.from_numpy(expected))
    _check_gradient(embedder)
    if have_equal_lengths(embedder):
        notes.append("its embeddings all have the same length, so embedding_norm stays empty")
    return OnnxModel(embedder, size, f"{title}, {size}-d", assumed, tuple(notes))


def _crops(size: int) -> Tensor:
    """Return two crops of noise, (2, 3, S, S) in [0, 1]."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def _shapes(model: ModelProto, entry: GraphInput) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the values that rewriting asks for."""
    picture = np.zeros((entry.batch, 3, entry.size, entry.size), np.float32)
    shapes: dict[str, tuple[int, ...]] = {entry.name: picture.shape}
    names = [name for name in shapes_needed(model) if name != entry.name]
    if names:
        values = Session(with_outputs(model, names)).run({entry.name: picture}, names)
        shapes |= {name: value.shape for name, value in values.items()}
    return shapes


def _choose_preprocessing(
    model: ModelProto, entry: GraphInput, given: Preprocessing | None
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
    if entry.size != USUAL_SIZE:
        template = "box"
        assumed.append("template")
    return Preprocessing("RGB", mean, std, entry.size, template), tuple(assumed)


def _own_range(model: ModelProto, entry: GraphInput) -> int | None:
    """Return the highest value of a pixel, 255 or 1, for a graph that scales pixels itself.

    The pixel value it maps to zero tells: it lies about the middle of the range, or at its lower
    end.
    """
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


def _compare_rounded(expected: Tensor, rounded: Tensor) -> None:
    """Make sure that leaving the rounding out changed little."""
    likeness = F.cosine_similarity(expected, rounded, dim=1).min().item()
    if not likeness >= LEAST_LIKENESS:
        raise UnsupportedGraph(
            "it does not work without the rounding of its activations: its embeddings with and "
            f"without have a cosine of {likeness:.2f}"
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
        if not embedding.requires_grad:
            raise UnsupportedGraph(NO_GRADIENT)
        (gradient,) = torch.autograd.grad((embedding * weights).sum(), crop)
        with torch.no_grad():
            ahead, behind = (embedder(crop + sign * STEP * direction) for sign in (1, -1))
    finally:
        embedder.float()
    if not gradient.any():
        raise UnsupportedGraph(NO_GRADIENT)
    found = (gradient * direction).sum()
    expected = ((ahead - behind) * weights).sum() / (2 * STEP)
    if not abs(found - expected) <= GRADIENT_TOLERANCE * gradient.norm():
        raise UnsupportedGraph(
            f"its gradient is wrong: a slope of {found:.4g} in place of {expected:.4g}"
        )
