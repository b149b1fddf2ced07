"""Copying, moving and linking of single files, which never replaces another file."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from faceqan_toolkit.errors import NotPlaced, TooLarge
from faceqan_toolkit.files import BLOCK_BYTES, sha256_of, sync_folder
from faceqan_toolkit.photos.stores import LocalFile, check_size
from faceqan_toolkit.text import path_text, reason_of
from faceqan_toolkit.types import Content, FileState

PENDING, FINISH, THERE = "to do", "to finish", "already there"
"""Results of `inspect`: the destination is free; a move was interrupted after its copy; done."""

OCCUPIED = "another file is there; it stays as it is"
CHANGED = "the photo has changed since it was scored"


def place_below(folder: Path, relative: str) -> Path:
    """Return the path of a file below a folder, given an untrusted path with forward slashes.

    NotPlaced if the path is absolute, has a drive, `..` or a NUL, or is empty.
    """
    path = PurePath(relative)
    if path.is_absolute() or path.drive or path.root or ".." in path.parts or not path.parts:
        raise NotPlaced("its path leads out of the folder")
    if "\0" in relative:
        raise NotPlaced("its path has a NUL character")
    return folder / path


def check_inside(folder: Path, target: Path) -> None:
    """Raise NotPlaced if a link on the path to a target leads out of a folder."""
    parent = target.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    inside = os.path.realpath(folder)  # does not fail on circular links
    # the folder itself is missing and will be created
    if parent != folder and parent in folder.parents:
        return
    if not Path(os.path.realpath(parent)).is_relative_to(inside):
        raise NotPlaced(f"{path_text(parent)} is a link that leads out of the folder")


def inspect(
    content: Content, target: Path, mode: str, state: FileState | None,
    began: Callable[[], bool] = lambda: False,
) -> str:  # fmt: skip
    """Return what is left to do for a photo: `PENDING`, `FINISH` or `THERE`. Nothing is changed.

    Args:
        content, target: the photo and its destination.
        mode: "copy", "move", "link" (a hard link) or "symlink".
        state: expected file state of the photo; None if unknown.
        began: returns whether an earlier command began to copy or move the file to the target.

    Raises:
        NotPlaced: the photo is missing, not a file, larger than a photo may be, or changed; another
            file is at the target; or the mode is not "copy" for a photo in an archive or at a URL.
        PhotoError: a photo in an archive or at a URL cannot be read.
    """
    if not isinstance(content, LocalFile):
        return _inspect_content(content, target, mode, state)
    source = content.file
    try:
        found = source.lstat()
        if stat.S_ISLNK(found.st_mode):
            if mode == "move":
                raise NotPlaced("it is a link; move takes the photo itself alone")
            found = source.stat()
    except (FileNotFoundError, NotADirectoryError):
        if _is(target, state):
            return THERE  # moved by an earlier command
        raise NotPlaced("the photo is gone") from None
    except (OSError, ValueError) as error:
        raise NotPlaced(reason_of(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise NotPlaced("it is no file")
    try:
        check_size(found.st_size)
        if state and not _same(source, found, state):
            raise NotPlaced(CHANGED)
        return _left(source, found, target, mode, state, began)
    except TooLarge as error:
        raise NotPlaced(f"it has {error}; it stays where it is") from error
    except (OSError, ValueError) as error:
        raise NotPlaced(reason_of(error)) from error


def _inspect_content(content: Content, target: Path, mode: str, state: FileState | None) -> str:
    if mode != "copy":
        raise NotPlaced(f"it lies in an archive or behind a URL; only copy takes it, not {mode}")
    try:
        there = target.lstat()
    except FileNotFoundError:
        return PENDING
    except (OSError, ValueError) as error:
        raise NotPlaced(reason_of(error)) from error
    if stat.S_ISREG(there.st_mode):
        wanted = (state and state.sha256) or hashlib.sha256(content.read()[0]).hexdigest()
        if sha256_of(target) == wanted:
            return THERE
    raise NotPlaced(OCCUPIED)


def _left(
    source: Path, found: os.stat_result, target: Path, mode: str, state: FileState | None,
    began: Callable[[], bool],
) -> str:  # fmt: skip
    """Return what is left to do for an unchanged source."""
    try:
        there = target.lstat()
    except FileNotFoundError:
        return PENDING
    if mode == "symlink" and stat.S_ISLNK(there.st_mode) and target.readlink() == source:
        return THERE
    if stat.S_ISREG(there.st_mode):
        if source.parent.samefile(target.parent):
            return THERE  # source and target are the same folder
        if os.path.samestat(found, there):
            return FINISH if mode == "move" else THERE
        # a move deletes the source next, so both files are read; a copy trusts the run's checksum
        known = state.sha256 if state and mode != "move" else ""
        if found.st_size == there.st_size and sha256_of(target) == (known or sha256_of(source)):
            # the source is deleted only if this tool made the copy
            return FINISH if mode == "move" and began() else THERE
    raise NotPlaced(OCCUPIED)


def place(content: Content, target: Path, mode: str, state: FileState | None, found: str) -> None:
    """Copy, move or link a photo, given the result of `inspect`; after a kill it can be repeated.

    Raises:
        FileExistsError: the target has appeared since.
        NotPlaced: it failed; the photo is unchanged.
        PhotoError: a photo in an archive or at a URL cannot be read.
    """
    if not isinstance(content, LocalFile):
        if found != THERE:
            data = content.read()[0]
            with _placing(target, mode):
                _write(target, [data], state)
        return
    source = content.file
    with _placing(target, mode):
        if found == FINISH:
            source.unlink()
        elif found == THERE:
            pass
        elif mode == "copy":
            _write(target, _blocks(source), state, source)
        elif mode == "move":
            _move(source, target, state)
        elif mode == "link":
            os.link(os.path.realpath(source), target)
        else:
            target.symlink_to(source)


@contextmanager
def _placing(target: Path, mode: str) -> Iterator[None]:
    """Make the target's folder; turn errors into NotPlaced, except that the target exists."""
    with suppress(OSError):  # left by a killed process
        part_of(target).unlink(missing_ok=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except FileExistsError as error:
        if target.parent.is_dir():
            raise
        raise NotPlaced("a file stands where a folder is needed") from error
    except OSError as error:
        if mode == "link" and error.errno == errno.EXDEV:
            raise NotPlaced("on another file system, where no hard link leads") from error
        raise NotPlaced(reason_of(error)) from error


def part_of(target: Path) -> Path:
    """Return the temporary name of an incomplete copy: hidden, and the same every time."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.with_name(f".faceqan-{digest}.part")


def _is(target: Path, state: FileState | None) -> bool:
    """Tell whether a file has a state; without a state, whether it exists."""
    try:
        found = target.lstat()
        return stat.S_ISREG(found.st_mode) and (state is None or _same(target, found, state))
    except OSError:
        return False


def _same(file: Path, found: os.stat_result, state: FileState) -> bool:
    """Tell whether a file has a state: equal size and time, or equal size and content."""
    if found.st_size != state.size:
        return False
    if found.st_mtime_ns == state.mtime_ns:
        return True
    return bool(state.sha256) and sha256_of(file) == state.sha256


def _move(source: Path, target: Path, state: FileState | None) -> None:
    """Move a file; the source is removed last."""
    try:
        os.link(source, target)  # unlike rename, a link never replaces a file
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno != errno.EXDEV and _rename(source, target):
            return
        before = source.stat()
        _write(target, _blocks(source), state, source, verify=True)
        after = source.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            target.unlink()
            raise NotPlaced("the photo changed while it was copied") from None
    try:
        source.unlink()
    except OSError:
        target.unlink()
        raise


def _rename(source: Path, target: Path) -> bool:
    """Rename where hard links are impossible; return False if the file systems differ."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        source.rename(target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    return True


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            yield block


def _write(
    target: Path, blocks: Iterable[bytes], state: FileState | None, source: Path | None = None, *,
    verify: bool = False,
) -> None:  # fmt: skip
    """Write a file atomically, with the times and mode of `source`: flushed, then renamed.

    With `verify` the file is read again before it is renamed.
    """
    part, digest = part_of(target), hashlib.sha256()
    try:
        with part.open("xb") as copy:
            for block in blocks:
                digest.update(block)
                copy.write(block)
            copy.flush()
            os.fsync(copy.fileno())
        if state and state.sha256 and digest.hexdigest() != state.sha256:
            raise NotPlaced(CHANGED)
        if source:
            with suppress(OSError):  # not all file systems store times and modes
                shutil.copystat(source, part)
        if verify and sha256_of(part) != digest.hexdigest():
            raise NotPlaced("the copy differs from the photo; is the disk in order?")
        try:
            os.link(part, target)
        except FileExistsError:
            raise
        except OSError:
            _rename(part, target)
        if verify:
            with suppress(OSError):  # not all file systems can flush a folder
                sync_folder(target.parent)
    finally:
        part.unlink(missing_ok=True)
