"""Every registered model from a downloaded file to a ranking, with random weights.

    python benchmarks/registered_models.py PHOTO [--names cosface_r100_glint360k ...] [--copies 1]

For each model that is not built in a file of its official layout is made in a folder of its own
under a name that tells nothing, in the wrapping its authors ship it in; `models add` takes it, and
`align-and-score --model NAME` scores the photo. Of models that come as ONNX the published sha256
refuses any other file, which is shown; an export of the same network is then given by its path.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

from faceqan_toolkit.models.architectures import architecture_of, build_backbone, official
from faceqan_toolkit.models.registry import Entry, entries

PREFIXES = {"magface": "features.module.", "adaface": "model."}


def checkpoint(entry: Entry) -> bytes:
    """Return a file of the model's official layout."""
    torch.manual_seed(0)
    state = build_backbone(architecture_of(entry)).state_dict()
    prefix = PREFIXES.get(entry.family, "")
    held: object = {prefix + name: tensor for name, tensor in state.items()}
    if prefix:
        held = {"epoch": 24, "state_dict": held}
    file = io.BytesIO()
    torch.save(held, file)
    return file.getvalue()


def onnx(entry: Entry) -> bytes:
    """Return an ONNX export of the kind of network that InsightFace's packages hold."""
    torch.manual_seed(0)
    network = build_backbone(official("iresnet", 100 if "r100" in entry.name else 50))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter, which needs no other package
        torch.onnx.export(network, (torch.rand(1, 3, 112, 112),), file, dynamo=False)
    return file.getvalue()


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FACEQAN_TOOLKIT_MODELS": str(folder / "models")}
    return subprocess.run(
        [sys.executable, "-m", "faceqan_toolkit", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def show(entry: Entry, photo: Path, copies: int) -> str:
    """Return one line: what became of the model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "download"
        file.write_bytes(onnx(entry) if entry.family == "onnx" else checkpoint(entry))
        added = command(folder, "models", "add", entry.name, str(file))
        if entry.family == "onnx":
            assert added.returncode == 1, added.stderr
            assert "is not the published" in added.stderr, added.stderr
            model = str(file)
        else:
            assert added.returncode == 0, added.stderr
            model = entry.name
        start = time.perf_counter()
        done = command(
            folder, "align-and-score", str(photo), "-o", str(folder / "run"), "--model", model,
            "-k", str(copies), "--format", "jsonl",
        )  # fmt: skip
        seconds = time.perf_counter() - start
        assert done.returncode == 0, done.stderr
        row = json.loads((folder / "run/rankings.jsonl").read_text().splitlines()[0])
        size = file.stat().st_size / 1e6
        how = "by path; `models add` refuses its sha256" if entry.family == "onnx" else "added"
        notice = "non-commercial notice" if "not for commercial use" in done.stderr else ""
        return (
            f"{entry.name:25} {size:6.0f} MB  {how}; run of {seconds:5.1f} s, "
            f"quality {row['quality']:.4f}, model {row['model']}  {notice}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    names = [name for name, entry in entries().items() if entry.source != "built in"]
    parser.add_argument("--names", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--copies", type=int, default=1)
    options = parser.parse_args()
    for name in options.names:
        print(show(entries()[name], options.photo, options.copies), flush=True)


if __name__ == "__main__":
    main()
