"""Do slow and failing photos hold up the others? A mix against the sum of its parts.

    python benchmarks/mixed.py PHOTO [--photos 400] [--rounds 3]

Three folders and one with all of them, shuffled: copies of PHOTO; one for every 20 of these a photo
of 40 megapixels; as many that cannot be read. Each goes through two worker processes
(`--preset instant`). Printed: seconds from the first photo to the last record, the best round. Then
one photo of the mix hangs: how many others are done before it is given up.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from PIL import Image

from faceqan_toolkit.engines.processes import ProcessEngine
from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.pipeline import Pipeline, Prepared
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import PhotoSource

LARGE = (7300, 5480)
TIMEOUT = 10.0


class Hanging(Pipeline):
    """Never done with one photo."""

    def prepare(self, source: PhotoSource) -> Prepared:
        if "hanging" in source.path:
            time.sleep(3600)
        return super().prepare(source)


def hanging(settings: Settings, crops_folder: Path | None) -> Pipeline:
    return Hanging(settings, crops_folder=crops_folder)


def fill(folder: Path, photo: Path, ordinary: int, others: int) -> None:
    """Write the photos; their names are in random order."""
    names = [f"{number:05d}" for number in range(ordinary + 2 * others)]
    random.Random(0).shuffle(names)
    with Image.open(photo) as image:
        large = image.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC)
    first = folder / "large.jpg"
    large.save(first, quality=90)
    for _ in range(ordinary):
        shutil.copy(photo, folder / f"{names.pop()}_ordinary{photo.suffix}")
    for index in range(others):
        shutil.copy(first, folder / f"{names.pop()}_large.jpg")
        (folder / f"{names.pop()}_broken.jpg").write_bytes(photo.read_bytes()[: 100 + index])
    first.unlink()


def seconds(sources: list[PhotoSource]) -> float:
    """Return how long two processes take when they are ready."""
    settings = Settings(preset="instant", device="cpu")
    running = ProcessEngine(["cpu"] * 2).run(sources, settings, None)
    start = time.perf_counter()
    assert sum(1 for _ in running) == len(sources)
    return time.perf_counter() - start


def while_one_hangs(sources: list[PhotoSource], folder: Path) -> None:
    """Print how the others fare."""
    shutil.copy(sources[0].place, folder / "00000_hanging.jpg")
    settings = Settings(preset="instant", device="cpu", photo_timeout=TIMEOUT)
    running = ProcessEngine(["cpu"] * 2, make=hanging).run(
        find_photos([str(folder)]), settings, None
    )
    start = time.perf_counter()
    for done, records in enumerate(running):
        if records[0].status == "timed_out":
            when, before = time.perf_counter() - start, done
    whole = time.perf_counter() - start
    print(
        f"one hangs, --photo-timeout {TIMEOUT:g}: given up after {when:.1f} s, {before} of "
        f"{len(sources)} others done by then, all after {whole:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, options.photo, options.photos, options.photos // 20)
        mix = list(find_photos([name]))
        parts = {
            kind: [source for source in mix if kind in source.path]
            for kind in ("ordinary", "large", "broken")
        }
        best = dict.fromkeys([*parts, "mix"], float("inf"))
        for _ in range(options.rounds):
            for kind, sources in {**parts, "mix": mix}.items():
                best[kind] = min(best[kind], seconds(sources))
        for kind, sources in {**parts, "mix": mix}.items():
            print(f"{kind:9} {len(sources):4} photos {best[kind]:7.2f} s")
        total = sum(best[kind] for kind in parts)
        print(f"the mix takes {best['mix'] / total:.2f} times the sum of its parts", flush=True)
        while_one_hangs(mix, folder)


if __name__ == "__main__":
    main()
