"""Archives and videos by their file extension, and the photos in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from faceqan_toolkit.errors import PhotoError, SettingsError
from faceqan_toolkit.paths import path_text
from faceqan_toolkit.photos.members import Archive, Failed
from faceqan_toolkit.photos.stores import Store, extension
from faceqan_toolkit.photos.video import VIDEO_EXTENSIONS, Every
from faceqan_toolkit.types import PhotoSource

ARCHIVE_EXTENSIONS = frozenset((".tar", ".parquet", ".rec")) | VIDEO_EXTENSIONS
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip")


@dataclass(frozen=True)
class ArchiveOptions:
    """Options of archives.

    Attributes:
        every: sampling of video frames.
        image_column: column of the photos in parquet files; "" detects it.
    """

    every: Every = Every(seconds=1.0)  # noqa: RUF009 - frozen
    image_column: str = ""


def is_archive(name: str) -> bool:
    """Tell by its name whether a file is an archive or a video.

    Raises:
        SettingsError: it is a compressed archive, which has no random access.
    """
    if name.lower().endswith(COMPRESSED):
        raise SettingsError(
            f"{name}: compressed archives have no random access; unpack it to a plain .tar or "
            "to a folder"
        )
    return extension(name) in ARCHIVE_EXTENSIONS


def open_archive(store: Store, options: ArchiveOptions = ArchiveOptions()) -> Archive:
    """Return the reader of a file with one of `ARCHIVE_EXTENSIONS`, without opening the file."""
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
    """Yield the photos in an archive, then a failing one if the archive is damaged.

    Args:
        root, path: location of the archive, as in records.
        store: the archive file.
        options: options of archives.
    """
    try:
        for name, content in open_archive(store, options).members():
            yield PhotoSource(root, f"{path}/{path_text(name)}", content)
    except PhotoError as error:
        yield PhotoSource(root, path, Failed(store, error))
