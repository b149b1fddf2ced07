"""Models that users added: converted, with their checksum, in a folder of the user's own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_data_path

from faceqan_toolkit.errors import ChecksumMismatch, DamagedWeights, MissingWeights
from faceqan_toolkit.files import is_file, parse_json, read_text
from faceqan_toolkit.models.registry import Entry, entries
from faceqan_toolkit.settings import is_model_name
from faceqan_toolkit.weights import checkout_weights
from faceqan_toolkit.wording import reason_of, short_checksum

FOLDER_VARIABLE = "FACEQAN_TOOLKIT_MODELS"


@dataclass(frozen=True)
class Installed:
    """A model's weights as they were added.

    Attributes:
        entry: what the model is.
        path: its weights.
        sha256: of that file when it was added, hexadecimal.
        original: name and sha256 of the file it was made from.
    """

    entry: Entry
    path: Path
    sha256: str
    original: tuple[str, str]

    @property
    def identity(self) -> str:
        """The sha256 of its weights and of all that decides what they compute."""
        entry = self.entry
        told = (entry.family, entry.channels, entry.mean, entry.std, entry.eps, entry.input_size,
                entry.template)  # fmt: skip
        return hashlib.sha256(f"{self.sha256} {told}".encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of its weights.

        Raises:
            MissingWeights: the file is gone, or cannot be read.
        """
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise MissingWeights(
                f"the weights {self.path} cannot be read: {reason_of(error)}; "
                f"{_again(self.path.stem)}"
            ) from error

    @property
    def card(self) -> Path:
        """The file that describes it."""
        return self.path.with_suffix(".json")

    def read(self) -> bytes:
        """Return the weights' content.

        Raises:
            MissingWeights: the file is gone, or cannot be read.
            ChecksumMismatch: it has changed since it was added.
        """
        return read(self.path, self.sha256)

    def describe(self) -> str:
        """Return the content of its card."""
        name, sha256 = self.original
        card = {
            "weights": self.path.name,
            "sha256": self.sha256,
            "made_from": {"name": name, "sha256": sha256},
            "model": asdict(self.entry),
        }
        return json.dumps(card, indent=2) + "\n"


def _again(name: str) -> str:
    return f"put the file back, or `faceqan-toolkit models remove {name}` and add it again"


def read(path: Path, sha256: str) -> bytes:
    """Return a weights file's content.

    Raises:
        MissingWeights: it is gone, or cannot be read.
        ChecksumMismatch: it is not the file it was.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingWeights(
            f"the weights {path} cannot be read: {reason_of(error)}; {_again(path.stem)}"
        ) from error
    if (digest := hashlib.sha256(content).hexdigest()) != sha256:
        raise ChecksumMismatch(
            f"{path} has changed: its sha256 is {short_checksum(digest)}, expected "
            f"{short_checksum(sha256)}; {_again(path.stem)}"
        )
    return content


def user_folder() -> Path:
    """Return where a user's models are kept: FACEQAN_TOOLKIT_MODELS, or the user's data folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else user_data_path("faceqan-toolkit", False) / "models"


def checkout_folder() -> Path | None:
    """Return where a checkout's models are kept; None if the package does not run from one."""
    weights = checkout_weights()
    return weights / "added" if weights else None


def find(name: str) -> Installed | None:
    """Return an added model, or None if there is none by that name.

    Raises:
        DamagedWeights: its card cannot be read.
    """
    if not is_model_name(name):
        return None
    for folder in filter(None, (user_folder(), checkout_folder())):
        card = folder / f"{name}.json"
        if is_file(card):
            return _read_card(card)
    return None


def names() -> list[str]:
    """Return the names of all added models."""
    folders = filter(None, (user_folder(), checkout_folder()))
    found = {card.stem for folder in folders for card in folder.glob("*.json")}
    return sorted(filter(is_model_name, found))


def _read_card(path: Path) -> Installed:
    with _readable(path):
        card = parse_json(read_text(path))
        entry = Entry(**card["model"])
        # what the package knows of a model now counts, not what it knew when it was added
        entry = entries().get(entry.name, entry)
        made_from = card["made_from"]
        return Installed(
            entry=entry,
            path=path.with_name(Path(card["weights"]).name),
            sha256=card["sha256"],
            original=(made_from["name"], made_from["sha256"]),
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedWeights(
            f"{path} cannot be read: {error}; delete it, and add the model again"
        ) from error
