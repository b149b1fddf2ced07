"""Runs to make reports of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo, RunWriter, read_run
from faceqan_toolkit.runs.ledger import SCHEMA, write_part
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS, Record

WEIGHTS = "0123456789abcdef" * 4
LANDMARKS = (30.0, 40.0, 60.0, 40.0, 45.0, 55.0, 35.0, 70.0, 55.0, 70.0)

EVIL = (
    "<img src=x onerror=\"document.title='owned'\">.jpg",
    "</script><script>document.title='owned'</script>.jpg",
    "\"quoted\" 'single' & &amp; {{ 7*7 }}.jpg",
    "=HYPERLINK(1,2), #1; x.jpg",
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467.jpg",
    "\u202egnp.exe \u05e9\u05dc\u05d5\u05dd.jpg",
    "new%0Aline.jpg",
    "-- <!-- ]]> \\u003c -->.jpg",
)


def face(path: str, quality: float, root: str = "/photos", **values: object) -> Record:
    known = dict(zip((*BOX_COLUMNS, *LANDMARK_COLUMNS), (20, 25, 70, 85, *LANDMARKS), strict=True))
    known |= sha256_of(root, path)
    return Record(
        path=path, root=root, face=0, status="ok", quality=quality,
        **{"confidence": 0.99, "face_px": 50.0, "rotation": 0, "model": "sface", "preset": "exact",
           "similarity_mean": 0.98, "similarity_std": 0.01, "symmetry": 0.97,
           "embedding_norm": 12.5, **known, **values},
    )  # type: ignore[arg-type]  # fmt: skip


def failed(path: str, status: str = "no_face", reason: str = "", root: str = "/photos") -> Record:
    return Record(
        path=path, root=root, face=None, status=status, reason=reason, **sha256_of(root, path)
    )


def sha256_of(root: str, path: str) -> dict[str, str]:
    """Return what a record says of a photo's content, if it is there."""
    file = Path(root) / path
    return {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()} if file.is_file() else {}


def make_run(folder: Path, records: Iterable[Record], task: str = "align-and-score") -> RunInfo:
    with RunWriter(folder, Settings(task=task), WEIGHTS if task != "detect" else "") as run:
        for record in records:
            run.append([record])
        run.flush()
        counts = Ranking(run.info).counts()
        started = "2026-01-02T03:04:05+00:00"
        run.write_info(counts, {"started": started, "seconds": 3723.4, "photos": 7})
    return read_run(folder)


def large_run(folder: Path, number: int) -> RunInfo:
    """Make a run of so many faces, n / number their qualities; its ledger is written at once."""
    run = make_run(folder, [face("first.jpg", 0.0)])
    template = pq.read_table(run.ledger.parts[0].file).to_pylist()[0]
    columns = {name: [value] * number for name, value in template.items()}
    columns["path"] = [f"person_{n % 5000:04d}/{n:06d}.jpg" for n in range(number)]
    columns["quality"] = [n / number for n in range(number)]
    write_part([pa.table(columns, schema=SCHEMA)], run.ledger.parts[0].file)
    return run


def write_photo(
    file: Path, colour: tuple[int, int, int], size: tuple[int, int] = (96, 128)
) -> None:
    """Write a plain picture; colour is RGB, size height and width."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), colour[::-1], np.uint8)
    encoded, data = cv2.imencode(file.suffix, pixels)
    assert encoded
    file.write_bytes(data.tobytes())


def mixed_run(folder: Path) -> RunInfo:
    """Twelve faces in folders a, b and the top one, three failures, names of every kind."""
    records = [
        face(f"{'ab'[n % 2]}/{n}.jpg", round(0.3 + 0.05 * n, 2), confidence=1 - n / 100)
        for n in range(4)
    ]
    records += [face(name, 0.5 + 0.01 * n) for n, name in enumerate(EVIL)]
    records += [
        failed("a/none.jpg", "no_face", "no face found, try --rotate"),
        failed("a/<b>bad</b>.jpg", "unreadable", '=damaged: </script><b>x</b>, "x"\nline'),
        failed("top.jpg", "too_small", "the largest face has 11 pixels"),
    ]
    return make_run(folder, records)
