"""Registry of data sets: a module with `@register_dataset` adds one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from faceqan_toolkit.errors import DatasetError, SettingsError
from faceqan_toolkit.evaluation.datasets.base import Dataset
from faceqan_toolkit.registry import Entries

Reader = Callable[..., Dataset]


@dataclass(frozen=True)
class DatasetEntry:
    """A registered data set.

    Attributes:
        name: name on the command line and in `read_dataset`.
        read: reader; takes the root folder and the options as keyword arguments.
        help: one line, shown by `evaluate --help`; ROOT is the folder.
        faces: default of `--faces`, one of `settings.FACE_POLICIES`; None if the faces are given.
        root: content of the root folder, for the documentation.
        size: official size, for the documentation.
        layout: paragraph on the files, for the documentation.
        aligned: whether the photos are aligned crops.
        own: whether photos and pairs are the user's; results are named after the folder.
    """

    name: str
    read: Reader
    help: str
    faces: str | None
    root: str
    size: str
    layout: str
    aligned: bool = False
    own: bool = False

    @property
    def module(self) -> str:
        """The module that registered it."""
        return self.read.__module__

    @cached_property
    def options(self) -> Mapping[str, bool]:
        """Options of the reader; the value tells whether the option is required."""
        return {
            name: parameter.default is parameter.empty
            for name, parameter in inspect.signature(self.read).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }


DATASETS: Entries[DatasetEntry] = Entries(
    "dataset",
    *(
        f"{__package__}.{module}"
        for module in ("lfw", "cfp_fp", "insightface_bin", "ijbc", "pairs", "folders")
    ),
)
"""Data sets by name. Another package adds one by an entry point, see `faceqan_toolkit.registry`."""


def register_dataset(name: str, **about: Any) -> Callable[[Reader], Reader]:
    """Return a decorator that registers a reader.

    The reader's first argument is the root folder. Its keyword-only arguments are the options of
    the data set; those without a default are required.

    Args:
        name: name of the data set.
        about: further attributes of its `DatasetEntry`, from `help` on.
    """

    def register(read: Reader) -> Reader:
        DATASETS.add(DatasetEntry(name, read, **about))
        return read

    return register


def read_dataset(name: str, root: Path, *, strict: bool = True, **options: Any) -> Dataset:
    """Return a data set; opens no photo.

    Args:
        name: name of a registered data set.
        root: folder of the data set; for "bin" also the file.
        strict: raise if the lists have errors; otherwise they are in `Dataset.log`, for
            `validation.validate`.
        options: options of the reader; None means not given. Of this package's data sets, lfw,
            xqlfw and pairs take `pairs`, and folders takes `non_mated`, `seed` and `identity`.

    Raises:
        SettingsError: no such data set, an option it does not take, or a required one is missing.
        DatasetError: no such folder; or, if `strict`, an error in the lists.
    """
    entry, root = DATASETS.find(name), Path(root)
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in entry.options:
            takers = [one.name for one in DATASETS.imported if option in one.options]
            where = f"; it is for {', '.join(takers)}" if takers else ""
            raise SettingsError(f"{name} takes no --{option.replace('_', '-')}{where}")
    for option, required in entry.options.items():
        if required and option not in given:
            raise SettingsError(f"{name} needs --{option.replace('_', '-')}")
    if not root.exists():
        raise DatasetError(f"{root}: no such folder")
    dataset = replace(entry.read(root, **given), faces=entry.faces)
    if strict:
        dataset.log.raise_errors(name)
        if not len(dataset.pairs):
            raise DatasetError(f"{name}: {root} has nothing to compare")
    return dataset
