"""Where `rank` writes its results: to the run folder, to a named file, or to standard output."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from faceqan_toolkit.cli.reporter import Reporter
from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.files import check_replaceable

HEADS = {
    "csv": (b"rank,", b"path,", b"group,"),
    "jsonl": (b'{"rank":', b'{"path":', b'{"group":'),
    "parquet": (b"PAR1",),
    "pickle": (b"\x80",),
}
"""First bytes of the files this tool writes, by format."""

TEXT_FORMATS = ("csv", "jsonl")
WHOLE_RESULTS = ("rankings", "faces", "results", "comparison")
"""Stems of the files in a run folder that hold every row."""


@dataclass(frozen=True)
class Exports:
    """The files that a command is asked for.

    All rows go to the run folder, or to `output`. Some of the rows go to `output`, or to standard
    output: a file in the run folder always holds every row.

    Attributes:
        formats: of the files; empty if the result is printed as a table.
        output: the file to write; None without one.
        some_rows: whether only some of the rows are wanted.

    Raises:
        SettingsError: options that contradict each other.
    """

    formats: Sequence[str]
    output: Path | None
    some_rows: bool

    def __post_init__(self) -> None:
        if self.output is not None and len(self.formats) != 1:
            raise SettingsError("-o FILE takes one --format")
        if not self.formats or self.output is not None or not self.some_rows:
            return
        if len(self.formats) > 1 or self.formats[0] not in TEXT_FORMATS:
            raise SettingsError(
                "--top and --bottom choose some of the rows, which replace no file of the run: "
                f"give -o FILE, or one --format of {' and '.join(TEXT_FORMATS)} to print them"
            )

    def write(
        self, file_format: str, whole: Path, total: int, export: Callable[[Path], int]
    ) -> None:
        """Write the rows in one format and print the file's name, or print the rows.

        Args:
            file_format: one of `formats`.
            whole: the file for all rows in the run folder.
            total: number of all rows.
            export: writes the wanted rows to a file and returns their number.

        Raises:
            RunError: the file cannot be written, or is something else.
        """
        if self.output is None and not self.some_rows:
            export(whole)
            click.echo(whole)
            return
        if self.output is None:
            with tempfile.TemporaryDirectory() as folder:
                rows = export(Path(folder) / "rows")
                with (Path(folder) / "rows").open("rb") as file:
                    shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()
        else:
            self._check(self.output, file_format)
            rows = export(self.output)
            click.echo(self.output)
        Reporter().message(f"{rows:,} of {total:,} rows")

    def _check(self, output: Path, file_format: str) -> None:
        in_run = (output.parent / "run.json").exists() and output.stem in WHOLE_RESULTS
        if self.some_rows and in_run:
            raise RunError(
                f"{output} is the run's own file and holds every row; choose another name"
            )
        check_replaceable(
            output, lambda head: head.startswith(HEADS[file_format]), f"{file_format} of this tool"
        )
