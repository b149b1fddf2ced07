"""Weights that ship with the package: found and verified before anything reads them."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

from faceqan_toolkit.errors import ChecksumMismatch, MissingWeights
from faceqan_toolkit.text import reason_of, short_checksum

INSTALL_AGAIN = (
    "install the package again (pip install --force-reinstall --no-deps faceqan-toolkit), or in a "
    "checkout get the file again (git checkout; git lfs pull if it is a pointer)"
)
"""What helps where a file of the package is missing or damaged."""


def checkout_weights() -> Path | None:
    """Return the folder `weights` of a checkout; None if the package is installed elsewhere."""
    folder = Path(str(files("faceqan_toolkit"))).parent / "weights"
    return folder if (folder / "README.md").is_file() else None


def weights_path(file_name: str) -> Path:
    """Return where a weights file lies: inside the installed package, or in a checkout.

    Raises:
        MissingWeights: in neither.
    """
    package = Path(str(files("faceqan_toolkit")))
    for folder in (package / "weights", package.parent / "weights"):
        if (folder / file_name).is_file():
            return folder / file_name
    raise MissingWeights(f"the weights {file_name} are not installed; {INSTALL_AGAIN}")


def read_weights(file_name: str, sha256: str) -> bytes:
    """Return the content of a weights file.

    Args:
        file_name: in the folder `weights`.
        sha256: what it must have, hexadecimal.

    Raises:
        MissingWeights: it is not there, or cannot be read.
        ChecksumMismatch: it is not the file it should be.
    """
    path = weights_path(file_name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingWeights(f"the weights {path} cannot be read: {reason_of(error)}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ChecksumMismatch(
            f"{path} is damaged or another file: its sha256 is "
            f"{short_checksum(digest)}, expected {short_checksum(sha256)}; "
            f"{INSTALL_AGAIN}"
        )
    return content
