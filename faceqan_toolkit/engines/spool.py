"""The list of photos for a Ray cluster: a file that is read while it is being written."""

from __future__ import annotations

import itertools
import pickle
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.runs.ledger import spill_folder
from faceqan_toolkit.text import counted, reason_of
from faceqan_toolkit.types import PhotoSource

if TYPE_CHECKING:
    from ray.data import Dataset

LENGTH = struct.Struct("<Q")
"""Number of bytes of a block, before each block in the file."""

COMPRESSION = 1
"""zlib's fastest: 20 microseconds for a block of 64 photos, and an eighth of the size."""

POLL_SECONDS = 0.02

LISTING = "listing"
"""File beside the photos that is removed at the end of the list: a full disk takes no end mark."""


@dataclass(frozen=True)
class Block:
    """Photos that travel together; `number` counts blocks from 0."""

    number: int
    photos: list[PhotoSource]


class Spool:
    """Writes blocks of photos to a file as fast as they are listed; a task of Ray reads along.

    Ray may start that task anew and expects the same blocks then: a file has them, a queue would
    have given them away. References to all blocks, made before the work begins, would cost this
    process 53 KB and 2.5 ms each (Ray 2.60). One byte is kept of each block: whether it has come
    back.

    Args:
        sources: the photos; a thread goes through them.
        size: photos in a block.
        home: the run folder, which then has the file; None: the folder for temporary files.

    Raises:
        RunError: the file cannot be made.
    """

    def __init__(self, sources: Iterable[PhotoSource], size: int, home: Path | None = None) -> None:
        with ExitStack() as stack:
            try:
                # the next command removes folders that killed ones left in a run folder
                folder = stack.enter_context(spill_folder(home)) if home else None
                if folder is None:
                    made = TemporaryDirectory(prefix="faceqan-", ignore_cleanup_errors=True)
                    folder = Path(stack.enter_context(made))
                for name in ("photos", LISTING):
                    (folder / name).touch()
            except OSError as error:
                raise RunError(f"there is no place for the list of photos: {error}") from error
            self.file, self._stack = folder / "photos", stack.pop_all()
        self._error: BaseException | None = None
        self._back = bytearray()
        self._complete = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._write, args=(iter(sources), size), name="spool", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._stack.close()

    def check(self) -> None:
        """Raise the error that ended the list too early, if there is one.

        Raises:
            RunError: the file could not be written; also any error of the photos' iterator.
        """
        if self._error is not None:
            raise self._error

    def take(self, number: int) -> bool:
        """Note that a block has come back; return whether it is the first time."""
        first = not self._back[number]
        self._back[number] = 1
        return first

    def check_all_back(self) -> None:
        """Raise RunError unless the list is complete and each block has come back; see `check`."""
        self.check()
        missing = self._back.count(0)
        if missing or not self._complete:
            raise RunError(
                f"{missing or 'some'} of {counted(len(self._back), 'block')} of photos have not "
                "come back from the Ray cluster; the same command does them again"
            )

    def dataset(self) -> Dataset:
        """Return a dataset with one row a block, column "block", pickled; read as it is written."""
        import ray
        from ray.data import DataContext

        context = DataContext.get_current().copy()
        context.target_max_block_size = 1  # a row is a task, and goes on as soon as it is there
        with DataContext.current(context):
            made: Dataset = ray.data.read_datasource(
                _source(self.file),
                override_num_blocks=1,
                num_cpus=0,
                # the file is here
                label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
            )
        return made

    def _write(self, sources: Iterator[PhotoSource], size: int) -> None:
        try:
            with self.file.open("ab", buffering=0) as file:
                while not self._stopped.is_set():
                    photos = list(itertools.islice(sources, size))
                    if not photos:
                        self._complete = True
                        break
                    block = pickle.dumps(Block(len(self._back), photos))
                    self._back.append(0)  # before a reader can see it
                    content = zlib.compress(block, COMPRESSION)
                    self._append(file, LENGTH.pack(len(content)) + content)
        except BaseException as error:  # noqa: BLE001 - raised again by `check`
            self._error = error
        finally:
            self.file.with_name(LISTING).unlink(missing_ok=True)

    def _append(self, file: FileIO, left: bytes) -> None:
        try:
            while left:  # a disk that is nearly full takes a part
                left = left[file.write(left) :]
        except OSError as error:
            raise RunError(
                f"cannot write the list of photos to {self.file.parent}: {reason_of(error)}"
            ) from error


def read_blocks(file: Path) -> Iterator[bytes]:
    """Yield the pickled blocks of a spool's file, also while it is being written."""
    with file.open("rb") as content:
        while head := _wait_for(content, LENGTH.size, file):
            block = _wait_for(content, LENGTH.unpack(head)[0], file)
            if not block:  # the disk was full
                return
            yield zlib.decompress(block)


def _wait_for(content: BinaryIO, size: int, file: Path) -> bytes:
    """Return the next `size` bytes as soon as they are written; b"" if the list ends before."""
    start = content.tell()
    while True:
        complete = not file.with_name(LISTING).exists()  # asked before the last look
        if len(found := content.read(size)) == size:
            return found
        if complete:
            return b""
        time.sleep(POLL_SECONDS)
        content.seek(start)


def _source(file: Path) -> Any:
    """Return Ray's view of the file: one task that yields its blocks."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    def tables() -> Iterator[pa.Table]:
        for block in read_blocks(file):
            yield pa.table({"block": pa.array([block], pa.binary())})

    unknown = dict.fromkeys(("num_rows", "size_bytes", "input_files", "exec_stats"))

    class Photos(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[Any]:
            return [ReadTask(tables, BlockMetadata(**unknown))]

    return Photos()  # type: ignore[no-untyped-call]
