"""Who may import whom, and what must not be imported early."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import faceqan_toolkit
from tests.conftest import HANG

PACKAGE = Path(faceqan_toolkit.__file__).parent
HEAVY = {"torch", "torchvision", "facenet_pytorch", "skimage", "cv2", "duckdb", "pyarrow", "rich",
         "openvino", "onnx", "onnxruntime", "onnx2torch", "jinja2", "ray"}  # fmt: skip

LAYERS = [
    {"errors", "types", "geometry", "paths", "cells", "prefetch", "allocator", "workers",
     "text_files", "methods", "hints", "cores", "process_wide", "wording", "rounding",
     "differences", "choices"},
    {"weights", "settings", "files", "bit_depth", "shards", "sources.names", "run_json"},
    {"sources.base", "sources.local", "sources.remote"},
    {"sources.tar", "sources.recordio", "sources.parquet", "sources.video"},
    {"sources.archives"},
    {"sources.locate"},
    {
        "finding", "photos", "scale", "device", "alignment", "attack", "facenet_weights",
        "embedders.step_check",
        "embedders.preprocessing", "embedders.base", "embedders.lengths", "embedders.freeze",
        "embedders.registry",
        "embedders.weights_file", "embedders.onnx_data",
        "embedders.iresnet", "embedders.ir", "embedders.inception_resnet",
    },
    {"measures", "embedders.openvino_model", "embedders.openvino_step", "embedders.compiled_step"},
    {"embedders.sface", "embedders.architectures", "proposals"},
    {"embedders.checkpoints", "ledger", "runs"},
    {"embedders.onnx_rewrites", "embedders.onnx_source", "embedders.onnx_session"},
    {"embedders.onnx_convert", "embedders.onnx_lengths", "embedders.onnx_network",
     "embedders.onnx_model"},
    {"embedders.files", "embedders.factories", "embedders.installed"},
    {"backend", "faces", "mtcnn", "yunet", "embedders.adding", "embedders.zoo"},
    {"run_model"},
    {"landmarks_index"},
    {"detection", "landmarks", "estimator", "database", "todo", "ranking", "intervals", "placing",
     "manifest", "run_crops"},
    {"filtering", "comparing", "grouping", "identities", "calibration", "merging"},
    {"transfer"},
    {"sinks.samples"},
    {"sinks.webdataset", "sinks.recordio"},
    {"sinks.export"},
    {"report.rows", "report.pictures", "report.groups", "report.page"},
    {"quality", "instant", "serfiq", "grafiqs", "embedding_norm"},
    {"estimators"},
    {"evaluation.options", "evaluation.pens", "evaluation.plain_pickle", "evaluation.matching",
     "evaluation.protocols.issues", "evaluation.protocols.templates"},
    {"evaluation.protocols.base", "evaluation.scores", "evaluation.legacy",
     "evaluation.run_faces"},
    {
        "evaluation.protocols.lfw", "evaluation.protocols.cfp", "evaluation.protocols.pairs",
        "evaluation.protocols.insightface_bin", "evaluation.protocols.folders",
        "evaluation.protocols.ijbc", "evaluation.embeddings", "evaluation.agreement",
    },
    {"evaluation.protocols.validation", "evaluation.protocols.registry"},
    {"evaluation.comparisons", "evaluation.embedding_store"},
    {"evaluation.verification", "evaluation.edc", "evaluation.embed"},
    {"evaluation.compare"},
    {"evaluation.bootstrap"},
    {"evaluation.thresholds"},
    {"evaluation.summary"},
    {"evaluation.evaluator"},
    {"evaluation.panels"},
    {"evaluation.tables", "evaluation.plots", "evaluation.page", "evaluation.job"},
    {"evaluation.output"},
    {"pipeline", "pictures"},
    {"explain", "engines.base", "engines.spool", "engines.worker",
     "engines.memory"},
    {"engines.processes"},
    {"engines.ray"},
    {"engines.choice"},
    {"diagnosis"},
    {"cli"},
]  # fmt: skip
"""Modules may import from their own layer and those above it in this list."""


def imported(module: Path) -> set[str]:
    """Return the package's modules that a module imports, anywhere in it."""
    found = set()
    known = set(modules())
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("faceqan_toolkit"):
            inner = (node.module or "").removeprefix("faceqan_toolkit").lstrip(".")
            # a module, or a package whose modules or names are imported
            submodules = {".".join(filter(None, (inner, name.name))) for name in node.names}
            found |= {inner} & known or submodules & known
    return found


def layer(name: str) -> int:
    head = "cli" if name.split(".")[0] == "cli" else name
    return next(index for index, modules in enumerate(LAYERS) if head in modules)


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    }


@pytest.mark.parametrize("name", modules())
def test_imports_go_one_way(name: str) -> None:
    for other in imported(modules()[name]):
        assert layer(other) <= layer(name), f"{name} imports {other}"


RECORDS = [
    "ranking", "runs", "todo", "ledger", "database", "cells", "types", "errors", "settings",
    "scale", "filtering", "placing", "manifest", "transfer", "comparing", "grouping", "intervals",
    "methods", "estimators", "hints", "calibration", "merging", "choices", "wording", "rounding",
    "identities",
]  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_records_need_no_torch(name: str) -> None:
    probe = f"import faceqan_toolkit.{name}, sys; print('torch' in sys.modules)"
    assert python(probe) == "False"


@pytest.mark.parametrize(
    "name", ["protocols.validation", "protocols.registry", "agreement", "embed", "thresholds"]
)
def test_evaluation_reads_without_torch_and_opencv(name: str) -> None:
    module = f"faceqan_toolkit.evaluation.{name}"
    probe = f"import {module}, sys; print({{'torch', 'cv2'}} & set(sys.modules))"
    assert python(probe) == "set()"


def test_scoring_needs_no_torchvision() -> None:
    """Importing it, and facenet-pytorch with it, takes as long as all of torch."""
    code = """
import sys
from faceqan_toolkit import Pipeline, Settings
Pipeline(Settings(device="cpu"))
print({"torch", "torchvision", "facenet_pytorch"} & set(sys.modules))
"""
    assert python(code) == "{'torch'}"


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANG
    )
    return done.stdout.strip()


COMMANDS = ["", "align-and-score", "detect", "align", "score", "rank", "filter", "calibrate",
            "report", "merge", "models", "explain", "evaluate", "doctor", "completion"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    code = f"""
import sys
from faceqan_toolkit.cli import cli
try:
    cli({[*filter(None, [command]), "--help"]!r})
except SystemExit as done:
    assert done.code == 0, done.code
print("HEAVY", sorted({HEAVY!r} & set(sys.modules)))
"""
    assert python(code).endswith("HEAVY []")


def test_commands_here_are_all() -> None:
    from faceqan_toolkit import cli

    assert set(cli.COMMANDS) == set(filter(None, COMMANDS))


def test_public_names() -> None:
    assert python("import faceqan_toolkit, sys; print('torch' in sys.modules)") == "False"
    for name in faceqan_toolkit.__all__:
        assert getattr(faceqan_toolkit, name)
        assert name in dir(faceqan_toolkit)
    with pytest.raises(AttributeError, match="nothing"):
        _ = faceqan_toolkit.nothing
