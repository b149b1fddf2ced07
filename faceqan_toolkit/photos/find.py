"""Finding photos: in what users give, in archives, and by the `root` and `path` of records."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO

from faceqan_toolkit.errors import PhotoError, SettingsError, Unreachable
from faceqan_toolkit.files import absolute, has_mark, is_file, is_folder, to_utf8
from faceqan_toolkit.photos.archives import Archive, Failed, Inside
from faceqan_toolkit.photos.recordio import RecordArchive
from faceqan_toolkit.photos.stores import (
    PHOTO_EXTENSIONS,
    LocalFile,
    RemoteFile,
    Store,
    expand_url,
    extension,
    is_url,
)
from faceqan_toolkit.photos.tar import TarArchive
from faceqan_toolkit.photos.video import VIDEO_EXTENSIONS, Every, VideoArchive
from faceqan_toolkit.text import path_from_text, path_text, reason_of
from faceqan_toolkit.types import PhotoSource

ARCHIVE_EXTENSIONS = frozenset((".tar", ".parquet", ".rec")) | VIDEO_EXTENSIONS
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip")

NO_PHOTOS = (
    "no photos were found. In folders, files are taken by their extensions (.jpg, .png, .heic and "
    "so on, docs/photos.md); raw files of cameras (.cr2, .nef, .dng) are not read."
)


@dataclass(frozen=True)
class ArchiveOptions:
    """Sampling of video frames, and the column of photos in parquet files ("" detects it)."""

    every: Every = Every(seconds=1.0)  # noqa: RUF009 - frozen
    image_column: str = ""


def find_photos(
    inputs: Iterable[str | os.PathLike[str]], *, stdin: IO[bytes] | None = None,
    options: ArchiveOptions | None = None,
) -> Iterator[PhotoSource]:  # fmt: skip
    """Yield the photos of all inputs, each once, folders sorted by name.

    Args:
        inputs: folders (searched recursively for `PHOTO_EXTENSIONS`, without run folders), files,
            archives and videos, glob patterns, URLs, `@list` (a text file of such inputs, one a
            line) or `-` (such a list from standard input).
        stdin: replacement for the process's standard input.

    Raises:
        SettingsError: an input does not exist, a pattern matches nothing, a folder is a run folder
            or has archives but no photos, or two photos would have the same path in the results.
        MissingDependency: a URL needs a package that is not installed.
    """
    roots: dict[str, str] = {}
    places: set[str] = set()
    for source in stream_photos(inputs, stdin=stdin, options=options):
        if source.place not in places:
            places.add(source.place)
            root = roots.setdefault(source.path, source.root)
            if root != source.root:
                raise two_photos(source.path, root, source.root)
            yield source


def two_photos(path: str, one: str, other: str) -> SettingsError:
    """Return the error for two photos with the same path in the results."""
    return SettingsError(
        f"{path!r} exists below {one} and below {other}; give a common parent folder, so that "
        "their paths differ"
    )


def stream_photos(
    inputs: Iterable[str | os.PathLike[str]], *, stdin: IO[bytes] | None = None,
    options: ArchiveOptions | None = None,
) -> Iterator[PhotoSource]:  # fmt: skip
    """Yield the photos of all inputs as `find_photos` does, without de-duplication.

    Several photos may have the same path, too; `runs.todo.Todo` checks that.
    """
    options = options or ArchiveOptions()
    for given in inputs:
        text = os.fspath(given)
        if text == "-":
            data = (stdin or sys.stdin.buffer).read()
            yield from _listed(data, "standard input", Path.cwd(), options)
        elif text.startswith("@") and not os.path.lexists(text):
            listing = Path(text[1:])
            try:
                data = listing.read_bytes()
            except OSError as error:
                raise SettingsError(f"{text}: {reason_of(error)}") from error
            yield from _listed(data, str(listing), listing.absolute().parent, options)
        elif os.path.lexists(text):
            yield from _existing(text, options)
        elif is_url(text):
            yield from _remote(text, options)
        elif glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute ones
            if not matches:
                raise SettingsError(f"{text}: nothing matches")
            # `**` also matches folders; their files match by themselves
            for match in [match for match in matches if not Path(match).is_dir()] or matches:
                yield from _existing(match, options)
        elif isinstance(locate("", text.replace(os.sep, "/")).content, Inside):
            yield from _existing(text, options)
        else:
            raise SettingsError(f"{text}: no such file or folder")


def _listed(data: bytes, shown: str, base: Path, options: ArchiveOptions) -> Iterator[PhotoSource]:
    """Yield the photos of a list from its content, its name for messages, and its folder."""
    for where, text in _entries_of(data, shown):
        if not text.strip() or text.startswith("#"):
            continue
        try:
            if is_url(text):
                scheme, _, rest = text.partition("://")
                if scheme in ("file", "local"):
                    _refuse_disk(rest.partition("**")[0])
                yield from _remote(text, options)
                continue
            # paths are relative to the list or to the current folder
            beside = os.fspath(base / text)
            given = beside if os.path.lexists(beside) else text
            _refuse_disk(given)
            yield from _existing(given, options)
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from error


def _entries_of(data: bytes, shown: str) -> Iterator[tuple[str, str]]:
    """Yield the location of each entry of a list, for messages, and the entry.

    Entries are lines, or end with NUL bytes as `find -print0` writes them. The latter is assumed
    only if the list ends with NUL and every entry has two bytes or more or is a dot, which UTF-16
    text, images and archives do not meet.
    """
    unit, lines = "entry", data.split(b"\0")[:-1]
    if has_mark(data) or not (
        data.endswith(b"\0") and all(len(line) > 1 or line == b"." for line in lines)
    ):
        unit = "line"
        try:
            lines = to_utf8(data).splitlines()
        except ValueError as error:
            raise SettingsError(
                f"{shown}: {error}. A list has one path a line; give photos by their paths"
            ) from error
    for number, line in enumerate(lines, start=1):
        where = f"{shown}, {unit} {number}"
        try:
            yield where, os.fsdecode(line)
        except UnicodeDecodeError as error:  # on systems where file names are text
            raise SettingsError(f"{where}: it is not UTF-8; save the list as UTF-8") from error


def _refuse_disk(place: str) -> None:
    """Refuse in a list, as a mistake: a file system's root, the home folder, or a parent of it."""
    if not is_folder(Path(place)):
        return
    real = Path(os.path.realpath(place))
    kind = "the top of a file system" if real == Path(real.anchor) else ""
    with suppress(RuntimeError):  # no home folder
        if not kind and Path(os.path.realpath(Path.home())).is_relative_to(real):
            kind = "the home folder, or above it"
    if kind:
        raise SettingsError(
            f"{place} is {kind}, which a list may not name; to search it, give it outside of a list"
        )


def _existing(text: str, options: ArchiveOptions) -> Iterator[PhotoSource]:
    """Yield the photos of a folder or an archive, or the one file or member named."""
    path = absolute(text)
    if _is_run(path):
        raise SettingsError(
            f"{text} is a run folder: give the folder of its photos, or its crops, "
            f"{Path(text) / 'crops'}"
        )
    if is_folder(path):
        yield from _walk(path)
        return
    here = Path.cwd()
    root = here if path.is_relative_to(here) else Path(path.anchor)
    yield from _expanded(_below(root, path), options)


def _remote(url: str, options: ArchiveOptions) -> Iterator[PhotoSource]:
    """Yield the photos at a URL: a file, an archive, or the photos below a folder."""
    archives, found = 0, False
    for root, name, is_named in expand_url(url):
        source = locate(path_text(root), path_text(name))
        if is_named:
            found = True
            yield from _expanded(source, options)
        elif extension(name) in PHOTO_EXTENSIONS:
            found = True
            yield source
        elif extension(name) in ARCHIVE_EXTENSIONS:
            archives += 1
    if archives and not found:
        raise _only_archives(url, archives, f"{url.rstrip('/')}/*.tar")


def _only_archives(folder: str | Path, archives: int, example: str) -> SettingsError:
    """Return the error for a folder of archives, with an example of how to give them."""
    return SettingsError(
        f"{folder} holds no photos, but {archives:,} archives or videos, which are read only when "
        f"they are given themselves, as in '{example}'"
    )


def _walk(root: Path) -> Iterator[PhotoSource]:
    """Yield the photos below a folder, by name; linked folders are visited once."""
    physical = {_identity(root)}
    pending = [root]
    while pending:  # real folders take precedence over links to them
        found, _ = _entries(pending.pop())
        folders = [Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False)]
        physical.update(map(_identity, folders))
        pending += folders
    visited = {_identity(root)}
    archives: list[Path] = []

    def walk(folder: Path) -> Iterator[PhotoSource]:
        entries, readable = _entries(folder)
        if not readable:
            yield _below(root, folder)
        for entry in entries:
            path = Path(entry.path)
            if path.suffix.lower() in PHOTO_EXTENSIONS:
                yield _below(root, path)
            elif path.suffix.lower() in ARCHIVE_EXTENSIONS:
                archives.append(path)
            linked = entry.is_symlink()
            if not (is_folder(path) if linked else entry.is_dir()):
                continue
            identity = _identity(path)
            if identity in visited or (linked and identity in physical):
                continue
            visited.add(identity)
            if not _is_run(path):  # its crops and reports are not photos
                yield from walk(path)

    source: PhotoSource | None = None
    for source in walk(root):
        yield source
    if source is None and archives:
        example = archives[0].with_name(f"*{archives[0].suffix}")
        raise _only_archives(root, len(archives), str(example))


def _is_run(folder: Path) -> bool:
    return is_file(folder / "run.json") and is_folder(folder / "records")


def _entries(folder: Path) -> tuple[list[os.DirEntry[str]], bool]:
    """Return a folder's entries by name, without hidden ones, and whether it is readable."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError:
        return [], False
    return sorted(entries, key=lambda entry: entry.name), True


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (-1, -1)
    return found.st_dev, found.st_ino


def _below(root: Path, path: Path) -> PhotoSource:
    return locate(path_text(root), path_text(path.relative_to(root)))


def open_archive(store: Store, options: ArchiveOptions = ArchiveOptions()) -> Archive:
    """Return the reader of a file with one of `ARCHIVE_EXTENSIONS`, without opening the file."""
    kind = extension(store.name)
    if kind == ".parquet":
        from faceqan_toolkit.photos.parquet import ParquetArchive  # pyarrow takes long to import

        return ParquetArchive(store, options.image_column)
    if kind in VIDEO_EXTENSIONS:
        return VideoArchive(store, options.every)
    return TarArchive(store) if kind == ".tar" else RecordArchive(store)


def _expanded(source: PhotoSource, options: ArchiveOptions) -> Iterator[PhotoSource]:
    """Yield a photo; of an archive its photos, then a failing one if the archive is damaged."""
    store = source.content
    if not isinstance(store, LocalFile | RemoteFile):  # already inside an archive
        yield source
        return
    if store.name.lower().endswith(COMPRESSED):
        raise SettingsError(
            f"{store.name}: compressed archives have no random access; unpack it to a plain .tar "
            "or to a folder"
        )
    if extension(store.name) not in ARCHIVE_EXTENSIONS:
        yield source
        return
    try:
        for name, content in open_archive(store, options).members():
            yield replace(source, path=f"{source.path}/{path_text(name)}", content=content)
    except PhotoError as error:
        yield replace(source, content=Failed(error, store))


def locate(root: str, path: str) -> PhotoSource:
    """Return the photo at a record's `root`, a folder or URL, and `path`; it need not exist.

    The path may lead into an archive.
    """
    folder, inner = path_from_text(root), path_from_text(path)

    def store_at(path: str) -> Store:
        url = is_url(folder)
        return RemoteFile(f"{folder.rstrip('/')}/{path}") if url else LocalFile(Path(folder, path))

    parts = inner.split("/")
    for index, part in enumerate(parts[:-1], 1):
        if extension(part) in ARCHIVE_EXTENSIONS:
            store = store_at("/".join(parts[:index]))
            # folders may have such names
            if not isinstance(store, LocalFile) or is_file(store.file):
                member = Inside(open_archive(store), "/".join(parts[index:]))
                return PhotoSource(root, path, member)
    return PhotoSource(root, path, store_at(inner))


def locate_recorded(root: str, path: str, *, fetch: bool = False) -> PhotoSource:
    """Return the photo of a run folder's record, see `locate`.

    Run folders are untrusted, so photos on other machines are `Failed` without `fetch`.
    """
    if fetch or not is_elsewhere(root):
        return locate(root, path)
    reason = f"it is on another machine, at {path_from_text(root)}; --fetch reads it there"
    return PhotoSource(root, path, Failed(Unreachable(reason)))


@lru_cache(64)
def is_elsewhere(root: str) -> bool:
    """Tell whether a root is on another machine: a URL, or on Windows a share."""
    root = path_from_text(root)
    return is_url(root) or (os.name == "nt" and root.startswith(("//", "\\\\")))


def is_there(source: PhotoSource) -> bool:
    """Tell whether a photo exists and can be accessed."""
    with suppress(PhotoError):
        source.content.state()
        return True
    return False
