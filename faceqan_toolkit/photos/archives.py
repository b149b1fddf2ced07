"""Which files are archives, and the photos in them as if they were folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from faceqan_toolkit.errors import PhotoError, SettingsError
from faceqan_toolkit.paths import path_text
from faceqan_toolkit.photos.base import Archive, Failed, Store
from faceqan_toolkit.photos.names import extension
from faceqan_toolkit.photos.video import VIDEO_EXTENSIONS, Every
from faceqan_toolkit.types import PhotoSource

ARCHIVE_EXTENSIONS = frozenset((".tar", ".parquet", ".rec")) | VIDEO_EXTENSIONS
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip")


@dataclass(frozen=True)
class ArchiveOptions:
    """How archives are read.

    Attributes:
        every: which frames of a video are taken.
        image_column: of parquet files; "" finds it.
    """

    every: Every = Every(seconds=1.0)  # noqa: RUF009 - frozen
    image_column: str = ""


def is_archive(name: str) -> bool:
    """Tell by its name whether a file is read as a folder.

    Raises:
        SettingsError: it is an archive that cannot be read in places.
    """
    if name.lower().endswith(COMPRESSED):
        raise SettingsError(
            f"{name}: compressed archives cannot be read in places; unpack it, to a plain .tar or "
            "to a folder"
        )
    return extension(name) in ARCHIVE_EXTENSIONS


def open_archive(store: Store, options: ArchiveOptions = ArchiveOptions()) -> Archive:
    """Return what reads a file with one of `ARCHIVE_EXTENSIONS`; nothing is opened yet."""
    kind = extension(store.name)
    if kind == ".tar":
        from faceqan_toolkit.photos.tar import TarArchive

        return TarArchive(store)
    if kind == ".rec":
        from faceqan_toolkit.photos.recordio import RecordArchive

        return RecordArchive(store)
    if kind == ".parquet":
        from faceqan_toolkit.photos.parquet import ParquetArchive

        return ParquetArchive(store, options.image_column)
    from faceqan_toolkit.photos.video import VideoArchive

    return VideoArchive(store, options.every)


def expand(root: str, path: str, store: Store, options: ArchiveOptions) -> Iterator[PhotoSource]:
    """Yield the photos in an archive, and one more if something is wrong with it.

    Args:
        root, path: of the archive, as records have them.
        store: the archive.
        options: how it is read.
    """
    try:
        for name, content in open_archive(store, options).members():
            yield PhotoSource(root, f"{path}/{path_text(name)}", content)
    except PhotoError as error:
        yield PhotoSource(root, path, Failed(store, error))
