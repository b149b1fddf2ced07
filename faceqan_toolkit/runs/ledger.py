"""The ledger: records in Parquet parts, each written whole, checked, joined when there are many."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.files import BLOCK_BYTES, link_or_copy, publish, sync_folder
from faceqan_toolkit.text import reason_of
from faceqan_toolkit.types import Record

JOINED_ROWS = 1_000_000
"""Rows that a joined part has at most."""
MANY = 64
"""So many parts with fewer rows than that are joined."""
ROW_GROUP = 100_000
"""Rows that are held in memory when a part is written or read."""

_ARROW = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
SCHEMA = pa.schema(
    [
        pa.field(
            column.name,
            _ARROW[str(column.type).removesuffix(" | None")],
            nullable=str(column.type).endswith(" | None"),
        )
        for column in fields(Record)
        if not column.metadata.get("derived")
    ]
)
"""Columns of the ledger: those of `Record` that do not follow from others."""

_NAME = re.compile(r"part-(\d+)(?:-(\d+))?(?:\.([0-9a-f]{8}))?\.parquet")
_CHECKED = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True)
)


@dataclass(frozen=True)
class Part:
    """A file of the ledger.

    Attributes:
        file: `part-000007.1f3a9c0e.parquet`, or `part-000000-000063.1f3a9c0e.parquet` for one that
            took the place of parts 0 to 63.
        first, last: numbers of the parts whose records it has, one and the same for most.
        checksum: CRC-32 of its bytes, hexadecimal; "" for a part by a name without one.
    """

    file: Path
    first: int
    last: int
    checksum: str = ""

    def is_covered_by(self, other: Part) -> bool:
        """Tell whether a part joined others, this one among them."""
        return other.first < other.last and other.first <= self.first and self.last <= other.last

    @property
    def rows(self) -> int:
        """The number of its rows."""
        return int(pq.read_metadata(self.file).num_rows)

    def damage(self) -> str:
        """Return what is wrong with the file, "" if nothing; all of it is read.

        Raises:
            RunError: it cannot be looked at, which says nothing of what is in it.
        """
        try:
            if self.checksum:  # first: Arrow may abort the process over a damaged footer
                return "" if _checksum(self.file) == self.checksum else "its checksum is wrong"
            with pq.ParquetFile(self.file, page_checksum_verification=True) as found:
                rows = sum(batch.num_rows for batch in found.iter_batches())
                return "" if rows == found.metadata.num_rows else "rows are missing"
        except (OSError, ValueError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno:
                raise RunError(f"cannot read {self.file}: {reason_of(error)}") from error
            return str(error)


class Ledger:
    """The parts of a run's ledger, later ones having later records.

    A part that joined others counts in place of all it covers, whether they have been deleted yet
    or not: that is why joining can be interrupted anywhere.

    Args:
        folder: `records` in the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def parts(self) -> list[Part]:
        """The parts that count, oldest first."""
        return self._sorted_out()[0]

    def dataset(self) -> pads.Dataset:
        """Return all records, columns that older versions did not write being null.

        Whoever reads them notices damaged pages by their checksums.

        Raises:
            RunError: a part is damaged at its end; the message names it. Or parts are being joined.
        """
        parts = self.parts
        for part in parts:
            try:
                _check_columns(part)
            except FileNotFoundError:
                raise joined_meanwhile(self.folder.parent) from None
            except (OSError, pa.ArrowException, ValueError) as error:
                raise _damaged(part, str(error)) from error
        return pads.dataset([str(part.file) for part in parts], schema=SCHEMA, format=_CHECKED)

    def refuse_damage(self) -> None:
        """Do nothing if every part is as it was written.

        Raises:
            RunError: one is not; the message names it.
        """
        for part in self.parts:
            if damage := part.damage():
                raise _damaged(part, damage)

    def write(self, tables: Iterable[pa.Table]) -> None:
        """Write a new part: under another name, to the disk, then renamed.

        Args:
            tables: with the columns of `SCHEMA`, see `as_table`; one is in memory at a time.

        Raises:
            OSError: it cannot be written; there is no new part then.
        """
        number = self._next_number()
        self._write(tables, number, number)

    def take(self, part: Part) -> None:
        """Take a part of another ledger as the next one of this, linked or copied.

        Raises:
            OSError: it cannot be read or written.
        """
        ending = f".{part.checksum}.parquet" if part.checksum else ".parquet"
        link_or_copy(part.file, self.folder / f"part-{self._next_number():06d}{ending}")

    def clear(self) -> None:
        """Remove all parts; only for whoever holds the run's lock."""
        for file in self.folder.glob("part-*.parquet"):
            file.unlink()

    def repair(self) -> Iterator[str]:
        """Move damaged parts aside, remove what no longer counts; tell people of the first.

        Only for whoever holds the run's lock.
        """
        while damaged := [(part, damage) for part in self.parts if (damage := part.damage())]:
            for part, damage in damaged:
                aside = self.folder / "damaged" / part.file.name
                aside.parent.mkdir(exist_ok=True)
                part.file.replace(aside)
                yield (
                    f"{part.file} is damaged ({damage}); it was moved to {aside.parent}, and its "
                    "photos are done again"
                )
        for leftover in self.folder.glob(".part-*.tmp"):
            leftover.unlink(missing_ok=True)
        self._remove_covered()

    def compact(self) -> None:
        """Join small parts that follow each other, if there are many; kill it whenever you like.

        Only for whoever holds the run's lock. Memory use does not grow with the parts.

        Raises:
            OSError, pyarrow.ArrowException: a part cannot be written or read; none is lost.
        """
        sized = [(part, part.rows) for part in self.parts]
        if sum(rows < JOINED_ROWS for _, rows in sized) < MANY:
            return
        for group in _groups(sized):
            tables = pads.dataset(
                [str(part.file) for part in group], schema=SCHEMA, format=_CHECKED
            ).to_batches(batch_readahead=1, fragment_readahead=1)
            self._write(_blocks(tables), group[0].first, group[-1].last)
            self._remove_covered()

    def _write(self, tables: Iterable[pa.Table], first: int, last: int) -> None:
        """Write a part; its name tells its checksum, so the file is written before it is named."""
        numbers = f"{first:06d}" if first == last else f"{first:06d}-{last:06d}"
        temporary = self.folder / f".part-{numbers}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)  # a link by that name would lead elsewhere
        try:
            write_part(tables, temporary)
            name = f"part-{numbers}.{_checksum(temporary)}.parquet"
            publish(temporary, self.folder / name)
        finally:
            temporary.unlink(missing_ok=True)

    def _next_number(self) -> int:
        kept, covered = self._sorted_out()
        return max((part.last for part in (*kept, *covered)), default=-1) + 1

    def _remove_covered(self) -> None:
        sync_folder(self.folder)  # the part that covers them must be there even without power
        for part in self._sorted_out()[1]:
            part.file.unlink(missing_ok=True)

    def _sorted_out(self) -> tuple[list[Part], list[Part]]:
        """Return the parts that count, oldest first, and those that others cover."""
        found = [
            Part(file, int(name[1]), int(name[2] or name[1]), name[3] or "")
            for file in self.folder.glob("part-*.parquet")
            if (name := _NAME.fullmatch(file.name)) and file.is_file()
        ]
        kept: list[Part] = []
        covered: list[Part] = []
        for part in sorted(found, key=lambda part: (part.first, -part.last, part.file.name)):
            (covered if kept and part.is_covered_by(kept[-1]) else kept).append(part)
        return kept, covered


def as_table(records: Sequence[Record]) -> pa.Table:
    """Return records as rows."""
    return pa.Table.from_pylist([record.to_dict() for record in records], schema=SCHEMA)


def completed(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """Return rows that may be written; texts that older versions did not write are empty."""
    table = pa.Table.from_batches(batches)
    columns = [
        table[field.name].fill_null("")
        if not field.nullable and pa.types.is_string(field.type)
        else table[field.name]
        for field in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


def write_part(tables: Iterable[pa.Table], file: Path) -> None:
    """Write tables with the columns of `SCHEMA`; one is in memory at a time."""
    # statistics of other columns would only be one more thing that damage can falsify
    with pq.ParquetWriter(
        file, SCHEMA, write_page_checksum=True, write_statistics=["attempt"]
    ) as writer:
        for table in tables:
            writer.write_table(table)


def _check_columns(part: Part) -> None:
    """Do nothing if a part's columns are as readers of the ledger rely on.

    Raises:
        ValueError: a column is of another type, or lacks a value that every record has.
    """
    found = pq.read_schema(part.file)
    unsure = []
    for column in SCHEMA:
        index = found.get_field_index(column.name)
        if index < 0:
            continue
        if found.field(index).type != column.type:
            raise ValueError(f"its column {column.name} is {found.field(index).type}")
        # files of this version cannot leave such a value out
        if found.field(index).nullable and not column.nullable:
            unsure.append(column.name)
    if not unsure:
        return
    with pq.ParquetFile(part.file) as file:
        for batch in file.iter_batches(columns=unsure):
            if any(column.null_count for column in batch.columns):
                raise ValueError(f"a value is missing in {', '.join(unsure)}")


def _groups(parts: Iterable[tuple[Part, int]]) -> Iterator[list[Part]]:
    """Yield neighbours that one part has room for, given all parts with their numbers of rows."""
    group: list[Part] = []
    held = 0
    for part, rows in parts:
        if held + rows > JOINED_ROWS:
            if len(group) > 1:
                yield group
            group, held = [], 0
        group.append(part)
        held += rows
    if len(group) > 1:
        yield group


def _blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield batches together, so many that they make a row group."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(held.num_rows for held in waiting) >= ROW_GROUP:
            yield completed(waiting)
            waiting = []
    if waiting:
        yield completed(waiting)


def _checksum(file: Path) -> str:
    """Return the CRC-32 of a file's bytes, 8 hexadecimal digits."""
    found = 0
    with file.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            found = zlib.crc32(block, found)
    return f"{found:08x}"


def joined_meanwhile(folder: Path) -> RunError:
    """Return the error for parts that were there a moment ago."""
    return RunError(
        f"{folder} is at work: parts of its ledger have been joined just now; try again"
    )


def _damaged(part: Part, damage: str) -> RunError:
    return RunError(
        f"{part.file} is damaged ({damage}); run again: only its photos are scored anew"
    )
