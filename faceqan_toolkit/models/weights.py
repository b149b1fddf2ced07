"""Weights files on disk: those that ship with the package, and users', with the external data of
ONNX graphs. No torch."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from faceqan_toolkit.errors import ChecksumMismatch, MissingWeights, UnsupportedGraph, WeightsError
from faceqan_toolkit.files import check_plain, is_inside, sha256_of
from faceqan_toolkit.text import path_text, reason_of, short_checksum

INSTALL_AGAIN = (
    "install the package again (pip install --force-reinstall --no-deps faceqan-toolkit), or in a "
    "checkout get the file again (git checkout; git lfs pull if it is a pointer)"
)

LARGEST = (2 << 30) - 1
"""Largest ONNX graph in one piece, in bytes: the limit of its format, protobuf."""


def checkout_weights() -> Path | None:
    """Return the folder `weights` of a checkout; None if the package is installed elsewhere."""
    folder = Path(str(files("faceqan_toolkit"))).parent / "weights"
    return folder if (folder / "README.md").is_file() else None


def weights_path(file_name: str) -> Path:
    """Return the path of a shipped file in the package or a checkout, or raise MissingWeights."""
    package = Path(str(files("faceqan_toolkit")))
    for folder in (package / "weights", package.parent / "weights"):
        if (folder / file_name).is_file():
            return folder / file_name
    raise MissingWeights(f"the weights {file_name} are not installed; {INSTALL_AGAIN}")


def read_weights(file_name: str, sha256: str) -> bytes:
    """Return the content of a shipped weights file; raise MissingWeights or ChecksumMismatch."""
    path = weights_path(file_name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingWeights(f"the weights {path} cannot be read: {reason_of(error)}") from error
    if (digest := _sha256(content)) != sha256:
        raise ChecksumMismatch(
            f"{path} is damaged or another file: its sha256 is {short_checksum(digest)}, "
            f"expected {short_checksum(sha256)}; {INSTALL_AGAIN}"
        )
    return content


def is_safetensors(content: bytes) -> bool:
    """Return whether content begins like safetensors: a header length in 8 bytes, then JSON."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") < 10**8


def is_onnx(content: bytes) -> bool:
    """Return whether content begins like ONNX: with the field of the format's version."""
    # the length that safetensors begins with may have the same first byte
    return content.startswith(b"\x08") and not is_safetensors(content)


def identify_weights(path: Path) -> tuple[int, str]:
    """Return the size in bytes and the sha256 of a weights file, external data included.

    For errors see `read_weights_file`.
    """
    with path.open("rb") as file:
        head = file.read(16)  # enough to tell an ONNX file from a checkpoint
        graph = head + file.read() if is_onnx(head) else b""
    external = _external_files(path, graph)
    size = path.stat().st_size + sum(file.stat().st_size for file in external.values())
    return size, _joined(sha256_of(path), {name: sha256_of(f) for name, f in external.items()})


def read_weights_file(path: Path) -> tuple[bytes, str]:
    """Return the content of a weights file, and the sha256 of it and its external data.

    External data of an ONNX graph is merged into the content. Raise OSError if the file cannot be
    read, and for the external data MissingWeights if it is missing or not beside the file,
    DamagedWeights if it is cut off, UnsupportedGraph if it has more than `LARGEST` bytes.
    """
    content = path.read_bytes()
    data = {name: file.read_bytes() for name, file in _external_files(path, content).items()}
    sha256 = _joined(_sha256(content), {name: _sha256(held) for name, held in data.items()})
    if data:
        from faceqan_toolkit.models.onnx_file import embed_data

        try:
            content = embed_data(content, data, LARGEST)
        except WeightsError as error:
            raise type(error)(f"{path}: {error}") from error
    return content, sha256


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _joined(graph: str, external: Mapping[str, str]) -> str:
    """Return one sha256 for a file and its external files; the file's own if it has none."""
    if not external:
        return graph
    lines = [graph, *(f"{sha256} {name}" for name, sha256 in sorted(external.items()))]
    return _sha256("\n".join(lines).encode("utf-8", "surrogateescape"))


def _external_files(path: Path, content: bytes) -> dict[str, Path]:
    """Return the files with external data of an ONNX graph, by their names in the graph."""
    if not is_onnx(content) or b"\x08location" not in content:  # the key as protobuf writes it
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from faceqan_toolkit.models.onnx_file import external_names
    except ImportError:
        return {}  # loading the graph will name the missing extra
    found = {name: _beside(path, name) for name in external_names(content)}
    size = sum(file.stat().st_size for file in found.values())
    if size > LARGEST:
        raise UnsupportedGraph(
            f"{path}: its weights have {size / 1e9:.1f} GB; at most 2 GiB can be used"
        )
    return found


def _beside(path: Path, name: str) -> Path:
    """Return the path of a file that an ONNX graph names; it must lie in or below its folder."""
    file, shown = path.parent / name, path_text(name)
    try:
        # download tools store files elsewhere, under other names, and link to them
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
