"""The whole job and its stages: photos a second, peak memory, against the published work.

    python benchmarks/whole.py PHOTOS [--photos 24] [--repeat 1 4 16] [--backend auto]

Every row is a process of its own over the same photos. The baseline detects with facenet-pytorch
(`MTCNN.detect`), aligns by scikit-image and OpenCV, and scores as the published code does
(`published.py`); ours is the command line with each preset and detector. Times are without
start-up, from the first photo to the last record; stages of ours overlap and are summed over
worker processes, so their sum may be more; peak memory is the largest process's. With `--repeat`,
the last preset's run again over so many copies of the photos: time must grow in proportion.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ("decode", "detect", "align", "score", "write")
OURS = {
    "exact": ["--preset", "exact"],
    "fast": ["--preset", "fast"],
    "instant": ["--preset", "instant"],
    "instant, yunet": ["--preset", "instant", "--detector", "yunet"],
}


def baseline(files: list[str]) -> dict[str, object]:
    """Do all photos as scripts around the published code do; return seconds by stage."""
    import cv2
    import numpy as np
    import published
    import torch
    from facenet_pytorch import MTCNN
    from PIL import Image, ImageOps
    from skimage.transform import SimilarityTransform

    from faceqan_toolkit.alignment import ARCFACE_TEMPLATE
    from faceqan_toolkit.models.load import load_model

    detector, network = MTCNN(keep_all=True), load_model("sface").requires_grad_(True)
    seconds = dict.fromkeys(STAGES, 0.0)
    faces = 0
    start = time.perf_counter()
    for file in files:
        marks = [time.perf_counter()]
        with Image.open(file) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        marks.append(time.perf_counter())
        _, _, landmarks = detector.detect(pixels, landmarks=True)
        marks.append(time.perf_counter())
        if landmarks is not None:
            points = np.asarray(landmarks[0], np.float64)
            matrix = SimilarityTransform.from_estimate(points, ARCFACE_TEMPLATE).params[:2]
            crop = cv2.warpAffine(pixels, matrix, (112, 112))
            marks.append(time.perf_counter())
            published.score(network, torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255)
            faces += 1
            marks.append(time.perf_counter())
        for stage, begin, end in zip(STAGES, marks, marks[1:], strict=False):
            seconds[stage] += end - begin
    return {"seconds": time.perf_counter() - start, "stages": seconds, "faces": faces}


def measured(command: list[str], text: str = "") -> tuple[float, str]:
    """Run a process; return its peak memory in MB and what it printed."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as given:
        given.write(text)
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if (code := os.waitstatus_to_exitcode(status)) not in (0, 3):
            raise SystemExit(f"{' '.join(command)} ended with {code}")
        output.seek(0)
        unit = 1024**2 if sys.platform == "darwin" else 1024
        return usage.ru_maxrss / unit, output.read()


def ours(folder: Path, work: Path, options: list[str]) -> dict[str, object]:
    """Do all photos with the command line; return seconds by stage and peak memory."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "faceqan_toolkit", "align-and-score", str(folder), "-o",
               str(run), "--device", "cpu", *options]  # fmt: skip
    peak, _ = measured(command)
    info = json.loads((run / "run.json").read_text())
    (done,) = info["invocations"]
    return {
        "seconds": done["processing_seconds"], "stages": done["seconds_by_stage"],
        "faces": info["counts"]["ok"], "peak": peak,
    }  # fmt: skip


def row(name: str, photos: int, result: dict, base: dict) -> str:
    cells = [f"{name:16}", f"{photos / result['seconds']:9.2f}"]
    quicker = base["seconds"] / base["photos"] / (result["seconds"] / photos)
    cells.append(f"{quicker:7.1f} x")
    for stage in STAGES:
        spent = result["stages"].get(stage, 0.0)
        cells.append(f"{1000 * spent / photos:8.1f}")
    return " ".join([*cells, f"{result['peak']:8.0f}", f"{result['faces']:6}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos_folder", type=Path, nargs="?")
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--repeat", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--baseline", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.baseline:
        print(json.dumps(baseline(json.load(sys.stdin))))
        return
    files = sorted(p for p in options.photos_folder.rglob("*") if p.is_file())[: options.photos]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)

        def copies(number: int) -> Path:
            folder = work / f"photos-{number}"
            folder.mkdir()
            for copy in range(number):
                for file in files:
                    shutil.copy(file, folder / f"{copy:03d}_{file.name}")
            return folder

        once = copies(1)
        command = [sys.executable, __file__, "--baseline"]
        peak, text = measured(command, json.dumps(sorted(map(str, once.iterdir()))))
        base = {**json.loads(text), "peak": peak, "photos": len(files)}
        print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}")
        print(f"{len(files)} photos; milliseconds a photo by stage, peak memory in MB")
        print(f"{'':16}  photos/s    ratio {' '.join(f'{s:>8}' for s in STAGES)}     peak  faces")
        print(row("published", len(files), base, base), flush=True)
        for name, chosen in OURS.items():
            backend = ["--backend", options.backend] if "instant" not in name else []
            print(row(name, len(files), ours(once, work, [*chosen, *backend]), base), flush=True)
        for number in options.repeat:
            folder = once if number == 1 else copies(number)
            photos = number * len(files)
            result = ours(folder, work, OURS["instant"])
            print(row(f"instant, {number} x", photos, result, base), flush=True)


if __name__ == "__main__":
    main()
