"""Finding photos in folders, files, archives, glob patterns, URLs and lists."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.files import absolute, has_mark, is_file, is_folder, to_utf8
from faceqan_toolkit.paths import path_text
from faceqan_toolkit.photos.archives import ARCHIVE_EXTENSIONS, ArchiveOptions, expand, is_archive
from faceqan_toolkit.photos.locate import locate
from faceqan_toolkit.photos.members import Inside
from faceqan_toolkit.photos.remote import RemoteFile, expand_url, is_url
from faceqan_toolkit.photos.stores import PHOTO_EXTENSIONS, LocalFile, extension
from faceqan_toolkit.text import reason_of
from faceqan_toolkit.types import PhotoSource

NO_PHOTOS = (
    "no photos were found. In folders, files are taken by their extensions (.jpg, .png, .heic and "
    "so on, docs/photos.md); raw files of cameras (.cr2, .nef, .dng) are not read."
)


def find_photos(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    stdin: IO[bytes] | None = None,
    options: ArchiveOptions | None = None,
) -> Iterator[PhotoSource]:
    """Yield the photos of all inputs, each once, folders sorted by name.

    Args:
        inputs: folders (searched recursively for `PHOTO_EXTENSIONS`), files, archives and videos
            (whose photos and frames are taken), glob patterns, URLs, `@list` (a text file of such
            inputs, one a line) or `-` (the same from standard input). Run folders among the
            photos are passed over.
        stdin: replacement for the process's standard input.
        options: options of archives.

    Raises:
        SettingsError: an input does not exist, a pattern matches nothing, a folder is a run folder
            or has archives but no photos, or two photos would have the same path in the results.
        MissingDependency: a URL needs a package that is not installed.
    """
    roots: dict[str, str] = {}
    places: set[str] = set()
    for source in stream_photos(inputs, stdin=stdin, options=options):
        if source.place in places:
            continue
        places.add(source.place)
        root = roots.setdefault(source.path, source.root)
        if root != source.root:
            raise two_photos(source.path, root, source.root)
        yield source


def two_photos(path: str, one: str, other: str) -> SettingsError:
    """Return the error for two photos with the same path in the results.

    Args:
        path: their path.
        one, other: their roots.
    """
    return SettingsError(
        f"{path!r} exists below {one} and below {other}; give a common parent folder, so that "
        "their paths differ"
    )


def stream_photos(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    stdin: IO[bytes] | None = None,
    options: ArchiveOptions | None = None,
) -> Iterator[PhotoSource]:
    """Yield the photos of all inputs as `find_photos` does, without de-duplication.

    A photo that is given twice is yielded twice, and several may have the same path;
    `runs.todo.Todo` removes both.
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
            plain = [match for match in matches if not Path(match).is_dir()] or matches
            for match in plain:
                yield from _existing(match, options)
        elif isinstance(locate("", text.replace(os.sep, "/")).content, Inside):
            yield from _existing(text, options)
        else:
            raise SettingsError(f"{text}: no such file or folder")


def _listed(data: bytes, shown: str, base: Path, options: ArchiveOptions) -> Iterator[PhotoSource]:
    """Yield the photos of a list.

    Args:
        data: content of the list, see `_entries_of`.
        shown: name of the list, for messages.
        base: folder of the list.
        options: options of archives.
    """
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

    Raises:
        SettingsError: the list is not text, or a line cannot be decoded.
    """
    unit, lines = "line", []
    if data.endswith(b"\0") and not has_mark(data):
        *entries, _ = data.split(b"\0")
        if all(len(entry) > 1 or entry == b"." for entry in entries):
            unit, lines = "entry", entries
    if not lines:
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
    """Refuse a folder that is probably a mistake in a list.

    Raises:
        SettingsError: it is a file system's root, the home folder, or a parent of it.
    """
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
    """Yield the photos of a folder or an archive, or the one file or member named.

    A file that disappears later becomes a failed record.
    """
    path = absolute(text)
    if is_folder(path):
        if is_run(path):
            raise SettingsError(
                f"{text} is a run folder: give the folder of its photos, or its crops, "
                f"{Path(text) / 'crops'}"
            )
        yield from _walk(path)
        return
    here = Path.cwd()
    root = here if path.is_relative_to(here) else Path(path.anchor)
    source = _below(root, path)
    if isinstance(source.content, LocalFile) and is_archive(path.name):
        yield from expand(source.root, source.path, source.content, options)
    else:
        yield source


def _remote(url: str, options: ArchiveOptions) -> Iterator[PhotoSource]:
    """Yield the photos at a URL: a file, an archive, or the photos below a folder."""
    archives = found = 0
    for root, name, is_named in expand_url(url):
        path = path_text(name)
        source = locate(path_text(root), path)
        if is_named and isinstance(source.content, RemoteFile) and is_archive(source.content.name):
            yield from expand(source.root, path, source.content, options)
        elif is_named or extension(name) in PHOTO_EXTENSIONS:
            found += 1
            yield source
        elif extension(name) in ARCHIVE_EXTENSIONS:
            archives += 1
    if archives and not found:
        raise SettingsError(_only_archives(url, archives, f"{url.rstrip('/')}/*.tar"))


def _only_archives(folder: str | Path, archives: int, example: str) -> str:
    return (
        f"{folder} holds no photos, but {archives:,} archives or videos, which are read only when "
        f"they are given themselves, as in '{example}'"
    )


def _walk(root: Path) -> Iterator[PhotoSource]:
    """Yield the photos below a folder, by name; linked folders are visited once."""
    physical = {_identity(root)}
    pending = [root]
    while pending:  # real folders take precedence over links to them
        for entry in _entries(pending.pop())[0]:
            if entry.is_dir(follow_symlinks=False):
                physical.add(_identity(entry.path))
                pending.append(Path(entry.path))
    visited: set[tuple[int, int]] = set()
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
            if not _is_dir(entry):
                continue
            identity = _identity(path)
            linked = entry.is_symlink()
            if identity in visited or (linked and identity in physical):
                continue
            visited.add(identity)
            if is_run(path):
                continue  # its crops and reports are not photos
            yield from walk(path)

    visited.add(_identity(root))
    found = False
    for source in walk(root):
        found = True
        yield source
    if not found and archives:
        example = archives[0].with_name(f"*{archives[0].suffix}")
        raise SettingsError(_only_archives(root, len(archives), str(example)))


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run folder of this tool."""
    return is_file(folder / "run.json") and is_folder(folder / "records")


def _entries(folder: Path) -> tuple[list[os.DirEntry[str]], bool]:
    """Return a folder's entries by name, without hidden ones, and whether it is readable."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError:
        return [], False
    return sorted(entries, key=lambda entry: entry.name), True


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a circular link


def _identity(path: str | Path) -> tuple[int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return (-1, -1)
    return found.st_dev, found.st_ino


def _below(root: Path, path: Path) -> PhotoSource:
    return locate(path_text(root), path_text(path.relative_to(root)))
