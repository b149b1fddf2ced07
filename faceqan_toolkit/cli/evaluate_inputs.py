"""What `evaluate` is given: models, files by name, options; and what it says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

from faceqan_toolkit.cli.options import is_given
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.evaluation.score_files import ScoreTable, read_scores
from faceqan_toolkit.files import is_file
from faceqan_toolkit.models.load import FoundModel
from faceqan_toolkit.settings import is_model_name


@dataclass(frozen=True)
class Recogniser:
    """The recognition model whose errors are counted.

    Attributes:
        name: in tables and figures.
        sha256: of its weights; "" if unknown.
        embeddings: file they are read from, if they were made elsewhere.
        found: the model, if they are made here.
    """

    name: str
    sha256: str
    embeddings: Path | None = None
    found: FoundModel | None = None

    @cached_property
    def cut_as(self) -> tuple[str, int]:
        """Template and size of the crops it takes."""
        assert self.found is not None
        known = self.found.entry or self.found.load()
        return known.template, known.input_size


def scores_of(given: str) -> tuple[ScoreTable, Path]:
    """Return the scores that NAME=FILE or NAME=FILE:COLUMN means."""
    name, file, column = named_scores(given)
    name = name or (file.name if file.is_dir() else file.stem)
    return read_scores(file, name, quality_column=column), file


def named_scores(given: str) -> tuple[str, Path, str | None]:
    """Return name, file and column of NAME=FILE:COLUMN; NAME and COLUMN may be left out."""
    name, file = named(given)
    place, colon, column = str(file).rpartition(":")
    if colon and column and not file.exists() and Path(place).exists():
        return name, Path(place), column
    return name, file, None


def named(given: str) -> tuple[str, Path]:
    """Return name and file of NAME=FILE, or "" and the file."""
    name, equals, rest = given.partition("=")
    if not equals or Path(given).exists():
        return "", Path(given)
    return name.strip(), Path(rest)


def is_weights_file(model: str) -> bool:
    """Tell whether `--model` names a file."""
    return not is_model_name(model) and is_file(Path(model))


def refuse(names: Sequence[str], why: str) -> None:
    """Refuse options that would be ignored."""
    for parameter in click.get_current_context().command.params:
        if parameter.name in names and is_given(parameter.name):
            raise SettingsError(f"{why}; leave {parameter.opts[-1]} out")


def tell(what: str, lines: Sequence[str]) -> None:
    """Say on standard error how an input fits the data set."""
    click.echo(f"{what}: {'; '.join(lines)}", err=True)
