"""The data sets by name, with their options. Importing this module imports no reader.

A module with `@register_dataset` adds one; another package names that module in an entry point of
the group `faceqan_toolkit.datasets`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from faceqan_toolkit.errors import DatasetError, SettingsError
from faceqan_toolkit.registry import Entries

if TYPE_CHECKING:
    from faceqan_toolkit.evaluation.datasets.base import Dataset
    from faceqan_toolkit.results.groups import IdentityRule

Reader = Callable[..., "Dataset"]
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class DatasetOption:
    """Description of a reader's option on the command line.

    Attributes:
        help: a short imperative or noun phrase.
        kind: type, or function that makes the value from a text; None for the default's type.
        metavar: placeholder of the value; "" for that of the type.
        default: text for a default of None.
    """

    help: str = ""
    kind: Callable[[str], Any] | None = None
    metavar: str = ""
    default: str = ""


@dataclass(frozen=True)
class DatasetEntry:
    """A registered data set.

    Attributes:
        name: name on the command line and in `read_dataset`.
        read: reader; takes the root folder and the options as keyword arguments.
        faces: default of `--faces`, one of `settings.FACE_POLICIES`; None if the faces are given.
        aligned: whether the photos are aligned crops.
        own: whether photos and pairs are the user's; results are named after the folder.
        templates: whether templates are compared.
        published: whether the published FaceQAN code evaluates it, see `--legacy-pickle`.
        example: ROOT and required options in the command's help.
        descriptions: of the reader's options, by name.
    """

    name: str
    read: Reader
    faces: str | None
    aligned: bool = False
    own: bool = False
    templates: bool = False
    published: bool = False
    example: str = "ROOT"
    descriptions: Mapping[str, DatasetOption] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The module that registered it."""
        return self.read.__module__

    @property
    def help(self) -> str:
        """The docstring of its reader."""
        return inspect.getdoc(self.read) or ""

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """Defaults of the reader's options; `REQUIRED` for one without."""
        return {
            name: parameter.default
            for name, parameter in inspect.signature(self.read).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }


DATASETS: Entries[DatasetEntry] = Entries("dataset")
"""Data sets by name."""


def register_dataset(name: str, *, faces: str | None, **about: Any) -> Callable[[Reader], Reader]:
    """Return a decorator that registers a reader.

    The reader's first argument is the root folder. Its keyword-only arguments are the options of
    the data set, also on the command line; those without a default are required. `seed` and
    `identity` are the options of that name that `evaluate` has; other names must be new there. The
    first paragraph of the docstring is shown by `evaluate --help`, where ROOT is the folder.

    Args:
        name: name of the data set.
        faces: default of `--faces`; None if the faces are given.
        about: further attributes of its `DatasetEntry`.
    """

    def register(read: Reader) -> Reader:
        DATASETS.add(DatasetEntry(name, read, faces, **about))
        return read

    return register


def read_dataset(name: str, root: Path, *, strict: bool = True, **options: Any) -> Dataset:
    """Return a data set; opens no photo.

    Args:
        name: name of a registered data set.
        root: folder of the data set; for "bin" also the file.
        strict: raise if the lists have errors; otherwise they are in `Dataset.log`, for
            `validation.validate`.
        options: options of the reader; None means not given. lfw, xqlfw and pairs take `pairs`;
            folders takes `non_mated`, `seed` and `identity`.

    Raises:
        SettingsError: no such data set, an option it does not take, or a required one is missing.
        DatasetError: no such folder; or, if `strict`, an error in the lists.
    """
    entry, root = DATASETS.find(name), Path(root)
    given = {option: value for option, value in options.items() if value is not None}
    for option in (option for option in given if option not in entry.options):
        takers = [one.name for one in DATASETS.imported if option in one.options]
        where = f"; it is for {', '.join(takers)}" if takers else ""
        raise SettingsError(f"{name} takes no `{option}`{where}")
    for option, default in entry.options.items():
        if default is REQUIRED and option not in given:
            raise SettingsError(f"{name} needs `{option}`")
    if not root.exists():
        raise DatasetError(f"{root}: no such folder")
    dataset = replace(entry.read(root, **given), faces=entry.faces)
    if strict:
        dataset.log.raise_errors(name)
        if not len(dataset.pairs):
            raise DatasetError(f"{name}: {root} has nothing to compare")
    return dataset


PAIRS = DatasetOption("Use this list of pairs instead of the data set's own.", Path, "FILE")
LFW_LIKE: Any = {"faces": "central", "published": True, "descriptions": {"pairs": PAIRS}}


@register_dataset("lfw", example="LFW", **LFW_LIKE)
def _lfw(root: Path, *, pairs: Path | None = None) -> Dataset:
    """LFW: ROOT holds pairs.txt and a folder for each person."""
    from faceqan_toolkit.evaluation.datasets.readers import read_lfw

    return read_lfw(root, pairs=pairs)


@register_dataset("xqlfw", example="XQLFW", **LFW_LIKE)
def _xqlfw(root: Path, *, pairs: Path | None = None) -> Dataset:
    """XQLFW: ROOT holds its pairs and lfw_original_imgs_min_qual0.85variant11."""
    from faceqan_toolkit.evaluation.datasets.readers import read_lfw

    return read_lfw(root, "xqlfw", pairs=pairs)


@register_dataset("cfp-fp", faces="largest", example="CFP")
def _cfp_fp(root: Path) -> Dataset:
    """CFP-FP: ROOT holds the folders Protocol and Data."""
    from faceqan_toolkit.evaluation.datasets.readers import read_cfp_fp

    return read_cfp_fp(root)


@register_dataset("bin", faces=None, aligned=True, example="lfw.bin")
def _bin(root: Path) -> Dataset:
    """InsightFace's .bin: ROOT is the file, or a folder with one; its photos are aligned."""
    from faceqan_toolkit.evaluation.datasets.insightface import read_insightface_bin

    return read_insightface_bin(root)


@register_dataset("ijbc", faces=None, templates=True, example="IJBC")
def _ijbc(root: Path) -> Dataset:
    """IJB-C 1:1: ROOT holds meta and loose_crop; landmarks come from its lists."""
    from faceqan_toolkit.evaluation.datasets.insightface import read_ijbc

    return read_ijbc(root)


LISTED = DatasetOption(
    "CSV file with the columns a, b (paths below ROOT) and label (1 mated, 0 not).", Path, "FILE"
)


@register_dataset(
    "pairs", faces="largest", own=True, example="photos --pairs pairs.csv",
    descriptions={"pairs": LISTED},
)  # fmt: skip
def _pairs(root: Path, *, pairs: Path) -> Dataset:
    """Your own list of pairs of photos below ROOT."""
    from faceqan_toolkit.evaluation.datasets.readers import read_pairs

    return read_pairs(root, pairs=pairs)


def _number_or_all(text: str) -> int | Literal["all"]:
    try:
        return "all" if text == "all" else int(text)
    except ValueError:
        raise SettingsError(f"`non_mated` is a number or all, not {text}") from None


NON_MATED = DatasetOption(
    "Number of random non-mated comparisons.", _number_or_all, "N|all", "as many as mated"
)


@register_dataset(
    "folders", faces="largest", own=True, example="people", descriptions={"non_mated": NON_MATED}
)
def _folders(
    root: Path, *, non_mated: int | Literal["all"] | None = None, seed: int = 0,
    identity: IdentityRule | str | None = None,
) -> Dataset:  # fmt: skip
    """Your own photos: ROOT holds a folder for each person, or as --identity says."""
    from faceqan_toolkit.evaluation.datasets.readers import read_folders

    return read_folders(root, non_mated=non_mated, seed=seed, identity=identity)
