"""Photos that a run is to process: those of its shard that it lacks, found in bounded memory."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from faceqan_toolkit.errors import PhotoError, RunError, SettingsError
from faceqan_toolkit.photos.archives import Failed
from faceqan_toolkit.photos.find import is_elsewhere, is_there, locate_recorded, two_photos
from faceqan_toolkit.runs.folder import RunWriter
from faceqan_toolkit.runs.ledger import attach, fetch_value, open_database
from faceqan_toolkit.types import PhotoSource

BLOCK = 10_000
"""Photos in memory at once."""

HEALABLE = frozenset(("crashed", "missing", "missing_extra", "no_permission", "timed_out",
                      "too_large", "unreachable"))  # fmt: skip
"""Statuses of failures that may be transient; such photos are tried again on resume."""


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `total` parts of the photos; a hash of the path decides.

    Every photo belongs to one shard, whatever the order and the other photos are. SettingsError if
    the number is not in 1..total.
    """

    number: int
    total: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.total:
            raise SettingsError(f"shard {self}: the first number must be in 1..{self.total}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard for a text like 2/8; raise SettingsError for other texts."""
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if found is None:
            raise SettingsError(f"shard {text}: write 2/8 for the second of eight")
        return cls(int(found[1]), int(found[2]))

    def has(self, path: str) -> bool:
        """Tell whether a photo belongs to the shard, by its path in results."""
        digest = hashlib.blake2b(path.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.total == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


class Known(NamedTuple):
    """The ledger's data on the last attempt at a photo.

    Attributes:
        failed, healable: the photo or one of its faces has no result; the status is `HEALABLE`.
    """

    root: str
    failed: bool
    healable: bool
    file_size: int | None
    mtime_ns: int | None
    sha256: str
    landmarks_id: str


class Todo:
    """The photos to process, out of the given ones; use it in a `with` statement.

    It has a length and yields the photos in their order, both after `compare`.

    Args:
        folder: the run folder, where data is spilled; created if missing, removed if left empty.
        sources: the given photos, read as they are found; a repeated photo counts once.

    Attributes:
        asked: number of given photos.

    Raises:
        SettingsError: two photos would have the same path in results. Errors of `sources` pass.
    """

    def __init__(self, folder: Path, sources: Iterable[PhotoSource]) -> None:
        with ExitStack() as stack:
            self._database = stack.enter_context(open_database(folder))
            self._database.execute(
                "CREATE TABLE asked (number BIGINT, root VARCHAR, path VARCHAR, content BLOB)"
            )
            self._database.execute("CREATE TABLE todo (number BIGINT, attempt BIGINT)")
            rows = (
                (number, source.root, source.path, pickle.dumps(source.content))
                for number, source in enumerate(sources)
            )
            while block := list(islice(rows, BLOCK)):
                self._insert("asked", ["number", "root", "path", "content"], block)
            self._drop_repeated()
            self.asked = int(fetch_value(self._database, "SELECT count(*) FROM asked"))
            self._length = 0
            self._stack = stack.pop_all()

    def compare(
        self,
        run: RunWriter,
        identify: Callable[[PhotoSource], str] = lambda _: "",
        *,
        retry_failed: bool = False,
    ) -> None:
        """Find the photos that are new, changed or to be tried again.

        Args:
            run: the run.
            identify: returns the present `landmarks_id` of a photo.
            retry_failed: try every photo without a result again, not only `HEALABLE` ones.

        Raises:
            RunError: the run has another photo with the same path, from another root.
        """
        attach(self._database, "ledger", run.ledger)
        self._database.execute(
            f"""CREATE TABLE known AS
                SELECT path, any_value(root) AS root, bool_or(status <> 'ok') AS failed,
                    bool_or(status IN {tuple(HEALABLE)}) AS healable,
                    any_value(file_size) AS file_size, any_value(mtime_ns) AS mtime_ns,
                    any_value(sha256) AS sha256, any_value(landmarks_id) AS landmarks_id,
                    max(attempt) AS attempt
                FROM ledger SEMI JOIN asked USING (path) GROUP BY path"""
        )
        self._database.execute(
            "INSERT INTO todo SELECT number, 0 FROM asked ANTI JOIN known USING (path)"
        )
        fields = ", ".join(f"known.{name}" for name in Known._fields)
        rows = self._rows(
            f"SELECT number, known.attempt, asked.root, path, content, {fields} "
            "FROM asked JOIN known USING (path)"
        )
        while block := list(islice(rows, BLOCK)):
            again = []
            for number, attempt, root, path, content, *known in block:
                source = PhotoSource(root, path, pickle.loads(content))
                if _is_to_do(source, Known(*known), identify(source), retry_failed, run.folder):
                    again.append((number, attempt + 1))
            self._insert("todo", ["number", "attempt"], again)
        self._length = int(fetch_value(self._database, "SELECT count(*) FROM todo"))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[PhotoSource]:
        for root, path, content, attempt in self._rows(
            "SELECT root, path, content, attempt FROM asked JOIN todo USING (number) "
            "ORDER BY number"
        ):
            yield PhotoSource(root, path, pickle.loads(content), attempt=attempt)

    def __enter__(self) -> Todo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release memory and disk."""
        self._stack.close()

    def _drop_repeated(self) -> None:
        """Keep the first of photos that are the same file; refuse different ones by one path."""
        one_root = fetch_value(self._database, "SELECT count(DISTINCT root) FROM asked") <= 1
        place = "path" if one_root else "rtrim(root, '/') || '/' || path"
        self._database.execute(
            f"""DELETE FROM asked USING (
                SELECT {place} AS place, min(number) AS first FROM asked
                GROUP BY place HAVING count(*) > 1
            ) AS repeated WHERE {place} = repeated.place AND number > first"""
        )
        clashes = [] if one_root else self._database.execute(
            """SELECT path, arg_min(root, number), arg_max(root, number) FROM asked
                GROUP BY path HAVING count(*) > 1 ORDER BY min(number) LIMIT 1"""
        ).fetchall()  # fmt: skip
        for path, one, other in clashes:
            raise two_photos(path, one, other)

    def _insert(self, table: str, names: list[str], rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            columns = [pa.array(column) for column in zip(*rows, strict=True)]
            self._database.register("block", pa.table(columns, names))
            self._database.execute(f"INSERT INTO {table} FROM block")
            self._database.unregister("block")

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query, few of them in memory, while other queries run."""
        with self._database.cursor() as cursor:
            cursor.execute(query)
            while rows := cursor.fetchmany(BLOCK):
                yield from rows


def _is_to_do(
    source: PhotoSource, known: Known, landmarks_id: str, retry_failed: bool, folder: Path
) -> bool:
    """Tell whether a photo of the ledger must be processed again."""
    if known.landmarks_id == landmarks_id and _is_same_file(source, known):
        return known.failed and (retry_failed or known.healable)
    if known.root != source.root:
        other = locate_recorded(known.root, source.path, fetch=is_elsewhere(source.root))
        if isinstance(other.content, Failed) or is_there(other):
            raise RunError(
                f"{source.place} and {other.place} would both be {source.path!r} in "
                f"{folder}; use another run folder, or give their common parent folder "
                "from the start"
            )
    return True


def _is_same_file(source: PhotoSource, known: Known) -> bool:
    try:
        state = source.content.state()
    except PhotoError:
        return known.file_size is None
    if state.size != known.file_size:
        return False
    if state.mtime_ns == known.mtime_ns:
        return True
    if not known.sha256:
        return False
    try:
        return hashlib.sha256(source.content.read()[0]).hexdigest() == known.sha256
    except PhotoError:
        return False
