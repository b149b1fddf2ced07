"""Protocols by name: the only place that knows all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from faceqan_toolkit.errors import ProtocolError, SettingsError
from faceqan_toolkit.evaluation.datasets.base import Protocol
from faceqan_toolkit.evaluation.datasets.cfp import read_cfp_fp
from faceqan_toolkit.evaluation.datasets.folders import read_folders
from faceqan_toolkit.evaluation.datasets.ijbc import read_ijbc
from faceqan_toolkit.evaluation.datasets.insightface_bin import read_insightface_bin
from faceqan_toolkit.evaluation.datasets.lfw import read_lfw
from faceqan_toolkit.evaluation.datasets.pairs import read_pairs
from faceqan_toolkit.evaluation.options import PROTOCOLS
from faceqan_toolkit.results.identities import IdentityRule


def read_protocol(
    name: str,
    root: Path,
    *,
    pairs: Path | None = None,
    non_mated: int | Literal["all"] | None = None,
    seed: int = 0,
    identity: IdentityRule | None = None,
    strict: bool = True,
) -> Protocol:
    """Return a data set's protocol; no photo is opened.

    Args:
        name: one of `options.PROTOCOLS`.
        root: the data set's folder; of "bin" the file or a folder with one.
        pairs: of "lfw" and "xqlfw" another list; of "pairs" the CSV file.
        non_mated: of "folders", see `read_folders`.
        seed: of "folders".
        identity: of "folders", see `read_folders`.
        strict: raise if its lists are not as they should be; else `Protocol.log` tells, and
            `validation.validate` reports it.

    Raises:
        SettingsError: an unknown name, or an option the protocol has not.
        ProtocolError: no such folder; or, if `strict`, an error in the lists.
    """
    root = Path(root)
    if name not in PROTOCOLS:
        raise SettingsError(f"no protocol is called {name!r}; there are {', '.join(PROTOCOLS)}")
    if pairs is not None and name not in ("lfw", "xqlfw", "pairs"):
        raise SettingsError(f"{name} has its own pairs; leave the list out")
    if identity is not None and name != "folders":
        raise SettingsError(f"{name} tells who is who; --identity is for folders")
    if (non_mated is not None or seed) and name != "folders":
        raise SettingsError(f"{name} has its own non-mated pairs; that choice is for folders")
    if not root.exists():
        raise ProtocolError(f"{root}: no such folder")
    if name in ("lfw", "xqlfw"):
        protocol = read_lfw(root, pairs=pairs, name=name)
    elif name == "cfp-fp":
        protocol = read_cfp_fp(root)
    elif name == "bin":
        protocol = read_insightface_bin(root)
    elif name == "ijbc":
        protocol = read_ijbc(root)
    elif name == "folders":
        protocol = read_folders(root, non_mated=non_mated, seed=seed, identity=identity)
    elif pairs is None:
        raise SettingsError("name the list of pairs: a CSV file with the columns a, b, label")
    else:
        protocol = read_pairs(root, pairs=pairs)
    if strict:
        protocol.log.raise_errors(name)
        if not len(protocol.pairs):
            raise ProtocolError(f"{name}: {root} has nothing to compare")
    return protocol
