"""Every parser of foreign files, fed with what a coverage-guided fuzzer makes of good ones.

    pip install atheris  # for Linux; no dependency of the package, as not every Python has it
    python benchmarks/fuzz.py [TARGET ...] [--runs 20000] [--seed 1] [--keep fuzz-findings]

A parser may return or raise a FaceQANError. Anything else is a finding: another exception, a crash,
more than 10 seconds or 3 GiB for one input. Each target has a process of its own, begins with
small good files that this script makes, and goes on to inputs that reach new lines of the package.
Prints a table; inputs of findings are kept in a folder, exceptions with their tracebacks, and end
the script with exit code 1. A finding's input is fed again by
`python benchmarks/fuzz.py TARGET --input FILE`. Needs the extras `onnx` and `heif`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

SECONDS, MEBIBYTES = 10, 3072
DEATHS = 5
"""A target whose process died so often is left."""

CUT = b"\x1e\x1e\n"
"""Between the files of an input, where a parser reads several."""

NESTED = [b"[" * depth + b"]" * depth for depth in (400, 900, 5000)]
"""Texts that no fuzzer would come upon; every target gets them."""

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        read: has it read the files in a folder.
        files: their names.
        seeds: makes good inputs: one file, or several joined with `CUT`.
    """

    read: Read
    files: tuple[str, ...]
    seeds: Callable[[], list[bytes]]

    def feed(self, folder: Path, data: bytes) -> None:
        """Have an input read."""
        contents = dict.fromkeys(self.files, b"")
        contents |= zip(self.files, data.split(CUT, len(self.files) - 1), strict=False)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        self.read(folder)


TARGETS: dict[str, Target] = {}


def target(*files: str, seeds: Callable[[], list[bytes]]) -> Callable[[Read], Read]:
    """Make a function that reads a folder's files a target of its name."""

    def add(read: Read) -> Read:
        TARGETS[read.__name__.replace("_", "-")] = Target(read, files, seeds)
        return read

    return add


# What the good files hold


def text(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def photo(kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def photos() -> list[bytes]:
    import pillow_heif
    from PIL import Image

    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    more = {"save_all": True, "append_images": [Image.new("RGB", (16, 16))]}
    return [
        photo("JPEG", exif=exif),
        photo("JPEG", "CMYK"),
        photo("JPEG", progressive=True),
        photo("PNG", "RGBA", exif=exif),
        photo("PNG", "I;16"),
        photo("PNG", "P"),
        photo("WEBP", exif=exif),
        photo("BMP"),
        photo("TIFF", compression="tiff_lzw"),
        photo("TIFF", "F"),
        photo("GIF", "P", **more),
        photo("MPO", **more),
        photo("HEIF"),
    ]


def tiff() -> bytes:
    """Return one that Pillow does not read: 16 bits a channel."""
    import cv2
    import numpy as np

    return bytes(cv2.imencode(".tiff", np.full((4, 4, 3), 999, np.uint16))[1])


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="none", **options)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def tar(*names: str) -> bytes:
    import tarfile

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    return file.getvalue()


def recordio() -> bytes:
    from faceqan_toolkit.results.training_set import RecordWriter, Sample

    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "a.rec", Path(folder) / "a.idx"
        writer = RecordWriter(*files)
        for label in range(3):
            writer.add(Sample(label, label, "", b"abc", ".jpg", {}))
        writer.finish()
        return CUT.join(file.read_bytes() for file in files)


def video() -> bytes:
    import cv2
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.avi"
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 2, (16, 16))
        for light in (0, 99, 200):
            writer.write(np.full((16, 16, 3), light, np.uint8))
        writer.release()
        return file.read_bytes()


def checkpoint_files() -> list[bytes]:
    import safetensors.torch
    import torch

    state = {"conv1.weight": torch.ones(2, 3), "bn.running_mean": torch.zeros(2).half()}
    files = []
    for zipped in (True, False):
        file = io.BytesIO()
        nested = {"state_dict": state, "epoch": 3}
        torch.save(nested, file, _use_new_zipfile_serialization=zipped)
        files.append(file.getvalue())
    return [*files, safetensors.torch.save(state)]


def onnx_file() -> bytes:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3) % 7 - 3
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def calibration_file() -> bytes:
    from faceqan_toolkit.quality.scale import Scale
    from faceqan_toolkit.results.calibration import Calibration, Errors, Rate, Threshold

    rate = Rate(40, 2800, 0.01, 0.02)
    errors = Errors(1e-3, 0.31, Rate(101, 100_000, 0.0008, 0.0012), rate, rate)
    made = Calibration(
        id="", model="sface", made_with={"steps": 5}, scale=Scale("mine", 0.6, 0.05),
        thresholds=(Threshold("fnmr", 0.01, 0.55, 0.5, 0.6, rate, errors),
                    Threshold("discard", 0.1, 0.5, None, None, rate)),
        counts={"people": 4}, seed=3, source={"run": "a"}, version="1",
    )  # fmt: skip
    return json.dumps(made.named().as_dict()).encode()


def run_file() -> bytes:
    from faceqan_toolkit.runs.folder import RunWriter
    from faceqan_toolkit.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        with RunWriter(Path(folder) / "run", Settings(), "0" * 64) as run:
            run.write_info({"ok": 1}, {"photos": 1, "seconds": 2.0})
        return (Path(folder) / "run" / "run.json").read_bytes()


def ledger_part() -> bytes:
    from faceqan_toolkit.runs.ledger import as_table, write_part
    from faceqan_toolkit.types import Record

    record = Record(path="a.jpg", root="/photos", status="ok", file_size=1, mtime_ns=2, face=0)
    with tempfile.TemporaryDirectory() as folder:
        write_part([as_table([record])], Path(folder) / "part")
        return (Path(folder) / "part").read_bytes()


def evaluation_files() -> bytes:
    def method(kind: str) -> dict[str, Any]:
        return {"kind": kind, "note": "", "targets": {"0.001": {"fnmr0": 0.1}}}

    summary = {"evaluations": [{"dataset": "lfw", "recogniser": "r", "options": {"edc": "fixed"},
               "methods": {"random": method("random"), "mine": method("file")}}]}  # fmt: skip
    curves = text("dataset,recogniser,method,target,discard,fnmr,errors,mated,low,high",
                  "lfw,r,random,FMR 0.001,0.5,0.1,1,10,0.1,0.2",
                  "lfw,r,mine,FMR 0.001,0.5,0.1,1,10,,")  # fmt: skip
    return json.dumps(summary).encode() + CUT + curves


def card() -> bytes:
    from faceqan_toolkit.models.registry import entries

    model = {**asdict(entries()["sface"]), "name": "mine"}
    made_from = {"name": "a.pth", "sha256": "0" * 64}
    content = {"model": model, "weights": "mine.onnx", "sha256": "0" * 64, "made_from": made_from}
    return json.dumps(content).encode()


def landmarks_table() -> bytes:
    from faceqan_toolkit.types import BOX_COLUMNS, LANDMARK_COLUMNS

    points = "38,52,73,52,56,72,41,92,70,92"
    header = ",".join(["path", *LANDMARK_COLUMNS, "confidence", *BOX_COLUMNS, "rotation"])
    return text(header, f"a.jpg,{points},0.9,0,0,112,112,90", f"b.jpg,{points},,,,,,")


# The parsers


@target("a.pkl", seeds=lambda: [pickle.dumps([{"a": 1.5, b"b": (None, True)}, [2**70]])])
def plain_pickle(folder: Path) -> None:
    from faceqan_toolkit.evaluation.safe_pickle import load_pickle

    load_pickle((folder / "a.pkl").read_bytes())


def bins() -> list[bytes]:
    import numpy as np

    sets = ([photo()] * 4, [True, False]), ([np.frombuffer(photo(), np.uint8)] * 2, np.array([1]))
    return [pickle.dumps(held, protocol=4) for held in sets]


@target("lfw.bin", seeds=bins)
def insightface_bin(folder: Path) -> None:
    protocol("bin", folder)


@target("pairs.txt", seeds=lambda: [text("2\t1", "A\t1\t2", "A\t1\tB\t2", "B\t1\t2", "B 1 A 1"),
                                    text("1", "A 1 2", "A 1 B 1")])  # fmt: skip
def lfw(folder: Path) -> None:
    protocol("lfw", folder)


@target("Protocol/Pair_list_F.txt", "Protocol/Pair_list_P.txt", "Protocol/Split/FP/01/same.txt",
        "Protocol/Split/FP/01/diff.txt",
        seeds=lambda: [CUT.join([text("1 ../Data/Images/001/frontal/01.jpg"),
                                 text("1 ../Data/Images/001/profile/01.jpg",
                                      "2 ../Data/Images/002/profile/01.jpg"),
                                 text("1,1"), text("1,2")])])  # fmt: skip
def cfp_fp(folder: Path) -> None:
    protocol("cfp-fp", folder)


@target("meta/ijbc_name_5pts_score.txt", "meta/ijbc_face_tid_mid.txt",
        "meta/ijbc_template_pair_label.txt",
        seeds=lambda: [CUT.join([text("1.jpg 1 2 3 4 5 6 7 8 9 10 0.9",
                                      "2.jpg 1 2 3 4 5 6 7 8 9 10 0.8"),
                                 text("1.jpg 1 7", "2.jpg 2 8"), text("1 2 0", "1 1 1")])]
        )  # fmt: skip
def ijbc(folder: Path) -> None:
    protocol("ijbc", folder)


@target("pairs.csv", seeds=lambda: [text("a,b,label", "x/1.jpg,x/2.jpg,1", '"y, 1.jpg",z.jpg,0')])
def own_pairs(folder: Path) -> None:
    protocol("pairs", folder, pairs=folder / "pairs.csv")


def protocol(name: str, folder: Path, **options: Any) -> None:
    from faceqan_toolkit.evaluation.datasets.registry import read_dataset
    from faceqan_toolkit.evaluation.datasets.validation import validate

    validate(read_dataset(name, folder, strict=False, **options))


@target("scores", seeds=lambda: [
    text("path,face,quality", "a/1.jpg,0,0.5", "'=b.jpg,1,nan"),
    text("a/1.jpg,0.5", "b.jpg,-1e3"),
    text("Filename;UnifiedQualityScore;UnifiedQualityScore.scalar", "a.png;1.5;50", "b.png;;-1"),
    text("a/1.jpg 0.5", "b 2.jpg 0.25"),
    pickle.dumps({"a.jpg": 0.5, "b.jpg": 1}),
    gzip.compress(text("path,quality", "a,1"), mtime=0),
])  # fmt: skip
def scores(folder: Path) -> None:
    from faceqan_toolkit.evaluation.score_files import read_scores

    read_scores(folder / "scores").match(["a/1.jpg", "x/b.jpg"])


@target("scores", seeds=lambda: [parquet({"path": ["a", "b"], "quality": [0.5, None]})])
def scores_parquet(folder: Path) -> None:
    scores(folder)


@target("embeddings", seeds=lambda: [npz(paths=["a", "b"], embeddings=[[1.0, 2.0], [3.0, 4.0]])])
def embeddings_npz(folder: Path) -> None:
    from faceqan_toolkit.evaluation.embeddings import read_embeddings

    read_embeddings(folder / "embeddings").match(["a", "c"])


@target("embeddings", seeds=lambda: [parquet({"path": ["a", "b"], "embedding": [[1.0], [2.0]]})])
def embeddings_parquet(folder: Path) -> None:
    embeddings_npz(folder)


def stored() -> Any:
    from faceqan_toolkit.evaluation.embeddings import EmbeddingSource

    return EmbeddingSource("sface", "0" * 64)


def embedding_store_file() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from faceqan_toolkit.evaluation.embeddings import METADATA

    schema = pa.schema({"path": pa.string(), "sha256": pa.string(),
                        "embedding": pa.list_(pa.float32(), 2)},
                       metadata={METADATA: json.dumps(asdict(stored()))})  # fmt: skip
    file = io.BytesIO()
    rows = [{"path": "a", "sha256": "0" * 64, "embedding": [1.0, 2.0]}]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="none")
    return file.getvalue()


@target("embeddings.parquet", seeds=lambda: [embedding_store_file()])
def embedding_store(folder: Path) -> None:
    from faceqan_toolkit.evaluation.embeddings import EmbeddingCache

    EmbeddingCache(folder / "embeddings.parquet", stored(), ["a", "b"], [None, None])


@target("faces.csv", seeds=lambda: [landmarks_table(), text("a.jpg,38,52,73,52,56,72,41,92,70,92")])
def landmarks(folder: Path) -> None:
    import numpy as np

    from faceqan_toolkit.detection.landmarks_file import LandmarksFile
    from faceqan_toolkit.photos.stores import LocalFile
    from faceqan_toolkit.settings import Settings
    from faceqan_toolkit.types import FileState, Photo, PhotoSource

    source = PhotoSource("/photos", "a.jpg", LocalFile(Path("/photos/a.jpg")))
    found = LandmarksFile(folder / "faces.csv", Settings())
    found.identify(source)
    found.detect(Photo(source, np.zeros((120, 120, 3), np.uint8), FileState(0, 0)))


@target("groups.csv", seeds=lambda: [text("path,sex,age", "a.jpg,f,30", "'=b.jpg,,", '"c,d",m,2')])
def groups(folder: Path) -> None:
    from faceqan_toolkit.results.groups import _read_groups

    _read_groups(folder / "groups.csv", "sex")


@target("calibration.json", seeds=lambda: [calibration_file()])
def calibration(folder: Path) -> None:
    from faceqan_toolkit.results.calibration import Calibration, read_calibration

    named = Calibration.named
    # or every changed file would be refused at the end, for its sum
    with mock.patch.object(Calibration, "named", lambda self: replace(named(self), id=self.id)):
        found = read_calibration(folder / "calibration.json")
    found.for_run(), found.threshold(discard=0.1)


@target("manifest.csv", seeds=lambda: [text(
    "source,destination,quality,decision,reason,sha256",
    "/nowhere/a.jpg,/nowhere/b.jpg,0.500000,move,," + "0" * 64, "/a,,,drop,'=x,", '"/a, b",,,,,',
)])  # fmt: skip
def manifest(folder: Path) -> None:
    from faceqan_toolkit.results.actions import Manifest, put_back

    with Manifest(folder / "manifest.csv", dry=True) as found:
        found.has("/a", "")
        list(put_back(found, dry=True))


@target("run.json", seeds=lambda: [run_file()])
def run_json(folder: Path) -> None:
    from faceqan_toolkit.runs.folder import read_run

    run = read_run(folder)
    run.settings, run.scale  # noqa: B018 - properties that parse


@target("part-000000.parquet", seeds=lambda: [ledger_part()])
def ledger(folder: Path) -> None:
    import pyarrow as pa

    from faceqan_toolkit.runs.ledger import Ledger

    found = Ledger(folder)
    if not any(part.damage() for part in found.parts):
        with suppress(pa.ArrowException, OSError):  # whoever reads the dataset turns these into one
            found.dataset().to_table()


@target("summary.json", "curves.csv", seeds=lambda: [evaluation_files()])
def evaluation(folder: Path) -> None:
    from faceqan_toolkit.evaluation.result_files import read_panels

    read_panels(folder, 1e-3)


@target("shards.json", seeds=lambda: [json.dumps({"shards": {"000.tar": {
    "selection": "ab", "photos": 1, "errors": [], "bytes": [512]}}}).encode()])  # fmt: skip
def exported_shards(folder: Path) -> None:
    from faceqan_toolkit.results.training_set import _read_index

    _read_index(folder)


@target("mine.json", seeds=lambda: [card()])
def model_card(folder: Path) -> None:
    from faceqan_toolkit.models.registry import find_added

    os.environ["FACEQAN_TOOLKIT_MODELS"] = str(folder)
    find_added("mine")


@target("a.pth", seeds=checkpoint_files)
def checkpoint(folder: Path) -> None:
    from faceqan_toolkit.errors import WrongArchitecture
    from faceqan_toolkit.models.checkpoints import read_state_dict, strip

    with suppress(WrongArchitecture):  # no seed is a whole network
        strip(read_state_dict((folder / "a.pth").read_bytes()))


@target("a.onnx", seeds=lambda: [onnx_file()])
def onnx(folder: Path) -> None:
    from faceqan_toolkit.models.checkpoints import load_onnx

    load_onnx((folder / "a.onnx").read_bytes())


def onnx_files() -> list[bytes]:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.onnx"
        onnx.save_model(
            onnx.load_from_string(onnx_file()), file, save_as_external_data=True, location="a.data",
            size_threshold=0,
        )  # fmt: skip
        return [file.read_bytes() + CUT + (Path(folder) / "a.data").read_bytes()]


@target("a.onnx", "a.data", seeds=onnx_files)
def onnx_external_data(folder: Path) -> None:
    from faceqan_toolkit.models.weights import read_weights_file

    read_weights_file(folder / "a.onnx")


@target("a.tar", seeds=lambda: [tar("a.jpg", "b/c.png", "d.txt", "é" * 99 + ".jpg")])
def tar_archive(folder: Path) -> None:
    archive(folder / "a.tar")


@target("a.rec", "a.idx", seeds=lambda: [recordio()])
def recordio_archive(folder: Path) -> None:
    archive(folder / "a.rec")


@target("a.parquet", seeds=lambda: [
    parquet({"image": [b"abc", b"de"], "label": [1, 2]}),
    parquet({"jpg": [{"bytes": b"abc", "path": "x"}], "key": ["k"]}),
])  # fmt: skip
def parquet_archive(folder: Path) -> None:
    archive(folder / "a.parquet")


@target("a.avi", seeds=lambda: [video()])
def video_archive(folder: Path) -> None:
    archive(folder / "a.avi")


def archive(file: Path) -> None:
    from faceqan_toolkit.errors import PhotoError
    from faceqan_toolkit.photos.find import open_archive
    from faceqan_toolkit.photos.stores import LocalFile

    opened = open_archive(LocalFile(file))
    for name, content in islice(opened.members(), 20):
        with suppress(PhotoError):
            content.read()
            opened.find(name)


@target("photo", seeds=lambda: [*photos(), tiff()])
def photo_file(folder: Path) -> None:
    from faceqan_toolkit.photos.decode import decode
    from faceqan_toolkit.photos.stores import LocalFile
    from faceqan_toolkit.types import PhotoSource

    source = PhotoSource("/photos", "photo", LocalFile(folder / "photo"))
    decode(source, max_pixels=100_000, at_least=8)


@target(
    "list", seeds=lambda: [text("a.jpg", "# b", "c d.png"), b"a.jpg\0\n.png\0", b"\xef\xbb\xbfa"]
)
def list_of_photos(folder: Path) -> None:
    from faceqan_toolkit.photos.find import find_photos

    # names of other folders, or URLs, are followed: that is what lists are for
    if not {b"/", b".."} & set(re.findall(rb"/|\.\.", (folder / "list").read_bytes())):
        list(find_photos([f"@{folder / 'list'}"]))


# Running them


def fuzz(name: str, corpus: Path, keep: Path, options: Sequence[str]) -> None:
    """Be the process of a target: read input after input, keep what is found."""
    import atheris

    from faceqan_toolkit.errors import FaceQANError

    chosen = TARGETS[name]
    folder = Path(tempfile.mkdtemp(dir=corpus.parent))
    os.chdir(folder)
    for file in chosen.files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["faceqan_toolkit"], enable_loader_override=False):
        seeds = chosen.seeds()
        for seed in seeds:
            chosen.feed(folder, seed)  # a good file; imports what it takes to read it
    for number, data in enumerate([*seeds, *NESTED]):
        (corpus / f"seed-{number}").write_bytes(data)

    def one_input(data: bytes) -> None:
        try:
            chosen.feed(folder, data)
        except FaceQANError:
            pass
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            steps = traceback.extract_tb(error.__traceback__)
            ours = [step for step in steps if "faceqan_toolkit" in step.filename][-1]
            stem = keep / f"{type(error).__name__}-{Path(ours.filename).stem}-{ours.lineno}"
            if not stem.with_suffix(".txt").exists():
                stem.with_suffix(".input").write_bytes(data)
                stem.with_suffix(".txt").write_text(traceback.format_exc(), encoding="utf-8")

    atheris.Setup([name, str(corpus), f"-artifact_prefix={keep}/", *options], one_input)
    atheris.Fuzz()


def findings(folder: Path) -> Iterator[Path]:
    """Yield what was found: tracebacks, and inputs that ended the process."""
    yield from sorted(file for file in folder.iterdir() if file.suffix != ".input")


def run(name: str, runs: int, seed: int, keep: Path) -> str:
    """Fuzz a target; return its row of the table."""
    keep.mkdir(parents=True)
    done, edges = 0, 0
    with tempfile.TemporaryDirectory() as work:
        corpus = Path(work) / "corpus"
        corpus.mkdir()
        for death in range(DEATHS):
            command = [sys.executable, __file__, name, "--fuzz", str(corpus), str(keep.absolute()),
                       f"-runs={runs - done}", f"-seed={seed + death}", f"-timeout={SECONDS}",
                       f"-rss_limit_mb={MEBIBYTES}", "-max_len=20000"]  # fmt: skip
            with (Path(work) / "log").open("w+b") as log:
                ended = subprocess.run(
                    command, stdout=log, stderr=log, check=False,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
                )  # fmt: skip
                log.seek(0)
                told = log.read().decode(errors="replace")
            steps = re.findall(r"^#(\d+)\s.*\bcov: (\d+)", told, re.MULTILINE)
            if "INFO: Seed" not in told:
                raise SystemExit(f"{name} did not begin:\n{told[-2000:]}")
            last, reached = steps[-1] if steps else (1, 0)
            done, edges = done + int(last), max(edges, int(reached))
            if ended.returncode == 0 or done >= runs:
                break
            print(f"{name}: process ended with {ended.returncode}", file=sys.stderr)
        found = list(findings(keep))
        files = len(list(corpus.iterdir()))
    if not found:
        keep.rmdir()
    return f"| {name} | {done:,} | {edges:,} | {files:,} | {len(found) or 'none'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--runs", type=int, default=20_000, help="inputs a target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), metavar="DIR")
    parser.add_argument("--input", type=Path, metavar="FILE", help="feed this to a target, once")
    parser.add_argument("--fuzz", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if chosen.fuzz:
        corpus, keep, *options = chosen.fuzz
        fuzz(chosen.targets[0], Path(corpus), Path(keep), options)
    elif chosen.input:
        with tempfile.TemporaryDirectory() as folder:
            one = TARGETS[chosen.targets[0]]
            for file in one.files:
                (Path(folder) / file).parent.mkdir(parents=True, exist_ok=True)
            one.feed(Path(folder), chosen.input.read_bytes())
    else:
        keep = Path(tempfile.mkdtemp(prefix="fuzz-")) if chosen.keep.exists() else chosen.keep
        print("| target | inputs | edges | inputs kept | findings |\n|---|---:|---:|---:|---:|")
        for name in chosen.targets or TARGETS:
            print(run(name, chosen.runs, chosen.seed, keep / name), flush=True)
        found = keep.exists() and any(keep.iterdir())
        if found:
            print(f"Findings are in {keep}", file=sys.stderr)
        raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
