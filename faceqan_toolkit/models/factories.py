"""Models that other Python code makes: `package.module:factory`, or a name a package offers."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from faceqan_toolkit.errors import WeightsError, WrongArchitecture

if TYPE_CHECKING:
    from faceqan_toolkit.models.base import Embedder

GROUP = "faceqan_toolkit.models"
"""Entry points of this group are models by name."""


def is_factory(model: str) -> bool:
    """Tell whether a text has the form of "package.module:factory"."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", model) is not None


def offered() -> Mapping[str, str]:
    """Return the models that installed packages offer: "package.module:factory" by name."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def build(factory: str) -> Embedder:
    """Return the model that a factory makes, checked.

    Args:
        factory: "package.module:factory"; modules of the current folder count.

    Raises:
        WeightsError: it cannot be imported, fails, or returns no usable `Embedder`.
    """
    from faceqan_toolkit.models.base import Embedder
    from faceqan_toolkit.models.checkpoints import check_embeddings, embedding_size

    module, _, name = factory.partition(":")
    try:
        with _current_folder():
            embedder = getattr(importlib.import_module(module), name)()
    except (Exception, SystemExit) as error:
        # whatever the code of others raises
        raise WeightsError(
            f"--model {factory} cannot be made: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(embedder, Embedder):
        raise WrongArchitecture(
            f"--model {factory} returned a {type(embedder).__name__}; it must return a "
            "faceqan_toolkit.Embedder, such as BackboneEmbedder(network, Preprocessing(...))"
        )
    embedder = embedder.cpu().float().eval().requires_grad_(False)
    try:
        check_embeddings(embedder, embedding_size(embedder))
    except Exception as error:
        # or its forward pass
        raise WrongArchitecture(f"--model {factory}: {error}") from error
    embedder.sha256 = _digest(embedder)
    embedder.title = embedder.title or f"made by {factory}"
    return embedder


@contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules of the current folder be imported, after all others."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _digest(embedder: Embedder) -> str:
    """Return the sha256 of a model's tensors and of what it does to crops before them."""
    digest = hashlib.sha256()
    crop = f"{embedder.input_size} {embedder.template} {getattr(embedder, 'preprocessing', '')}"
    digest.update(crop.encode())
    for name, tensor in embedder.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
