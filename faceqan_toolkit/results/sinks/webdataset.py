"""WebDataset's shards: a tar with the files of each sample one behind the other."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from faceqan_toolkit.results.sinks.samples import Sample


class TarWriter:
    """Writes one shard; the same samples give the same bytes.

    A sample is `FOLDER/NUMBER.jpg` (or as the photo is), `.cls` with its label if it has one, and
    `.json`.
    """

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, sample: Sample) -> str:
        """Append a sample; return the photo's name in the shard."""
        key = key_of(sample.folder, sample.number)
        self._member(f"{key}{sample.extension}", sample.data)
        if sample.label is not None:
            self._member(f"{key}.cls", str(sample.label).encode())
        about = json.dumps(sample.about, ensure_ascii=False, sort_keys=True)
        self._member(f"{key}.json", about.encode())
        return f"{key}{sample.extension}"

    def finish(self) -> None:
        """Write what ends a tar."""
        self._tar.close()

    def close(self) -> None:
        """Let go of the file, finished or not."""
        self._tar.close()

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._tar.addfile(info, io.BytesIO(data))


def key_of(folder: str, number: int) -> str:
    """Return a sample's key: WebDataset ends it at the first dot behind the last slash."""
    return f"{folder}/{number:09d}" if folder else f"{number:09d}"
