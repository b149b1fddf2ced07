"""What a run knows of each photo: its face's score and simple measures, and where its crop is."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.evaluation.matching import BARE_NAME_SQL, Match, bare_name, match_paths
from faceqan_toolkit.runs.database import connect, fetch_value
from faceqan_toolkit.runs.folder import RunInfo, read_run

MEASURES = ("quality", "face_px", "sharpness", "confidence", "embedding_norm")


@dataclass(frozen=True)
class RunFaces:
    """One face for each photo: the first that has a quality, else the first.

    Attributes:
        run: the run.
        paths: (R,) of its photos, each once.
        status: (R,) "ok" or why there is no result.
        crops: (R,) of the faces, relative to the run folder; "" if none was written.
        values: (R,) float64 for each of `MEASURES`, NaN where it is not known.
        others: how many photos the run has besides.
    """

    run: RunInfo
    paths: tuple[str, ...]
    status: tuple[str, ...]
    crops: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    others: int = 0

    def match(self, wanted: Sequence[str]) -> tuple[RunFaces, Match]:
        """Return the faces of some samples, in their order.

        Args:
            wanted: (N,) paths, `Protocol.paths` for instance; one that the run does not have gets
                the status "not_in_run".
        """
        match = match_paths(wanted, self.paths)
        places = match.index.tolist()
        return RunFaces(
            self.run,
            tuple(wanted),
            tuple("not_in_run" if place < 0 else self.status[place] for place in places),
            tuple("" if place < 0 else self.crops[place] for place in places),
            {name: np.append(values, np.nan)[match.index] for name, values in self.values.items()},
        ), match

    def counts(self) -> dict[str, int]:
        """Return how many photos have each status, most frequent first."""
        return dict(Counter(self.status).most_common())

    @property
    def cut_as(self) -> tuple[str, int] | None:
        """Template and size of its crops; None if the photos were crops already, or unknown."""
        settings = self.run.content["settings"]
        if settings["task"] == "align":
            return settings["template"], settings["crop_size"]
        model = self.run.content.get("model") or {}
        if settings["task"] == "score" or "template" not in model:
            return None
        return model["template"], model["input_size"]


def read_run_faces(folder: Path, wanted: Sequence[str] | None = None) -> RunFaces:
    """Return what a run folder holds.

    Args:
        folder: of the run.
        wanted: paths that will be asked for; memory then grows with these, not with the run, for
            photos that cannot match any are only counted.

    Raises:
        RunError: it is no run folder, or damaged.
    """
    run = read_run(folder)
    columns = ", ".join(f"CAST({name} AS DOUBLE) AS {name}" for name in MEASURES)
    with connect(ledger=run) as connection:
        # any face may be a photo's only one; DuckDB counts on the disk what memory does not hold
        photos = fetch_value(connection, "SELECT count(DISTINCT path) FROM ledger")
        if not photos:
            raise RunError(f"{folder} has no photos")
        chosen = "true"
        if wanted is not None:
            names = pa.table({"name": sorted({bare_name(path) for path in wanted})})
            connection.register("wanted_names", names)
            # else it takes the ledger for the smaller side of the join and holds all of it
            connection.execute("SET disabled_optimizers = 'build_side_probe_side,join_order'")
            chosen = f"{BARE_NAME_SQL} IN (SELECT name FROM wanted_names)"
        found = connection.execute(
            f"""SELECT path, status, coalesce(crop, '') AS crop, {columns} FROM ledger
            WHERE {chosen}
            QUALIFY row_number() OVER (
                PARTITION BY path ORDER BY quality IS NULL, status <> 'ok', face
            ) = 1 ORDER BY path"""
        ).fetchnumpy()
    return RunFaces(
        run,
        tuple(found["path"].tolist()),
        tuple(map(sys.intern, found["status"].tolist())),
        tuple(found["crop"].tolist()),
        {name: np.ma.filled(found[name], np.nan) for name in MEASURES},
        photos - len(found["path"]),
    )
