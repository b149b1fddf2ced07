"""Weights files as they lie on a disk, an ONNX graph's external data included. No torch."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from faceqan_toolkit.errors import MissingWeights, UnsupportedGraph, WeightsError
from faceqan_toolkit.files import check_plain, is_inside, sha256_of
from faceqan_toolkit.paths import path_text
from faceqan_toolkit.wording import reason_of

LARGEST = (2 << 30) - 1
"""Bytes of an ONNX graph in one piece: what its format, protobuf, can hold."""

HEAD = 16
"""Bytes that tell an ONNX file from a checkpoint."""


def is_safetensors(content: bytes) -> bool:
    """Tell by the header: its length in eight bytes, then JSON."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") < 10**8


def is_onnx(content: bytes) -> bool:
    """Tell an ONNX file, which begins with its format's version, from a checkpoint."""
    # a safetensors file begins with a length, whose first byte may be the same
    return content.startswith(b"\x08") and not is_safetensors(content)


def identify_weights(path: Path) -> tuple[int, str]:
    """Return the size of a weights file and its sha256, external data included.

    Raises:
        OSError: it cannot be read.
        MissingWeights, UnsupportedGraph: see `read_weights_file`.
    """
    external = _external_files(path, _graph(path))
    size = path.stat().st_size + sum(file.stat().st_size for file in external.values())
    return size, _joined(sha256_of(path), {name: sha256_of(f) for name, f in external.items()})


def read_weights_file(path: Path) -> tuple[bytes, str]:
    """Return a weights file's content, an ONNX graph in one piece, and the sha256 of its files.

    Raises:
        OSError: it cannot be read.
        MissingWeights: external data that is not there, or not beside the file.
        DamagedWeights: external data that is cut off.
        UnsupportedGraph: more than `LARGEST` bytes of external data.
    """
    content = path.read_bytes()
    data = {name: file.read_bytes() for name, file in _external_files(path, content).items()}
    sha256 = _joined(_sha256(content), {name: _sha256(held) for name, held in data.items()})
    if data:
        from faceqan_toolkit.models.onnx_data import embed_data

        try:
            content = embed_data(content, data, LARGEST)
        except WeightsError as error:
            raise type(error)(f"{path}: {error}") from error
    return content, sha256


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _joined(graph: str, external: Mapping[str, str]) -> str:
    """Return one sha256 of a file and of those it names; its own if it names none."""
    if not external:
        return graph
    lines = [graph, *(f"{sha256} {name}" for name, sha256 in sorted(external.items()))]
    return _sha256("\n".join(lines).encode("utf-8", "surrogateescape"))


def _graph(path: Path) -> bytes:
    """Return an ONNX file's content, b"" for any other file."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        return head + file.read() if is_onnx(head) else b""


def _external_files(path: Path, content: bytes) -> dict[str, Path]:
    """Return the files that hold an ONNX graph's weights, by the name it gives them."""
    if not is_onnx(content) or b"\x08location" not in content:  # the key as protobuf writes it
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from faceqan_toolkit.models.onnx_data import external_names
    except ImportError:
        return {}  # whoever loads the graph is told which extra it needs
    found = {name: _beside(path, name) for name in external_names(content)}
    size = sum(file.stat().st_size for file in found.values())
    if size > LARGEST:
        raise UnsupportedGraph(
            f"{path}: its weights have {size / 1e9:.1f} GB; at most 2 GiB can be used"
        )
    return found


def _beside(path: Path, name: str) -> Path:
    """Return a file that an ONNX graph names, if it lies in the graph's folder or below it."""
    file, shown = path.parent / name, path_text(name)
    try:
        # download tools keep files elsewhere under other names, and links to them here
        folders = path.parent, Path(os.path.realpath(path)).parent
        if not any(is_inside(folder, file) for folder in folders):
            raise MissingWeights(
                f"{path}: its weights are in {shown}, outside its folder, and are not read; put "
                "that file beside it and save the model with its name alone"
            )
        check_plain(file)
        with file.open("rb"):
            return file
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f"{path}: its weights are in {shown}, which cannot be read: {reason_of(error)}; "
            f"put that file beside {path.name}"
        ) from error
