"""Who may import whom, and what must not be imported early."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import faceqan_toolkit
from tests.conftest import HANG

PACKAGE = Path(faceqan_toolkit.__file__).parent
HEAVY = {"torch", "torchvision", "facenet_pytorch", "skimage", "cv2", "duckdb", "pyarrow", "rich",
         "openvino", "onnx", "onnxruntime", "onnx2torch", "jinja2", "ray", "numpy", "scipy",
         "PIL"}  # fmt: skip

ROOMS = [
    {"text"},
    {"types", "errors", "events", "geometry", "fields", "registry"},
    {"files", "settings", "hardware", "threads"},
    {"photos"},
    {"alignment", "models"},
    {"detection", "quality"},
    {"runs"},
    {"results"},
    {"report", "pipeline"},
    {"engines"},
    {"job"},
    {"explain", "evaluation"},
    {"api"},
    {"cli"},
]
"""Folders and files of the package; each may import from its own set and from those above it."""


@cache
def modules() -> dict[str, Path]:
    paths = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    return {name: path for name, path in paths.items() if name not in ("__init__", "__main__")}


@cache
def statements(name: str) -> list[ast.AST]:
    """Return a module's nodes, those for type checkers among them."""
    return list(ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))))


def imported(name: str) -> set[str]:
    """Return the package's modules that a module imports, anywhere in it."""
    found = set()
    known = set(modules())
    for node in statements(name):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("faceqan_toolkit"):
            inner = (node.module or "").removeprefix("faceqan_toolkit").lstrip(".")
            # a module, or a package whose modules or names are imported
            submodules = {".".join(filter(None, (inner, name.name))) for name in node.names}
            found |= submodules & known or {inner} & known
    return found


def room(name: str) -> int:
    return next(index for index, rooms in enumerate(ROOMS) if name.split(".")[0] in rooms)


def test_imports_go_one_way() -> None:
    graph = {name: imported(name) for name in modules()}
    climbing = [(name, one) for name, others in graph.items() for one in others
                if room(one) > room(name)]  # fmt: skip
    assert not climbing
    list(TopologicalSorter(graph).static_order())  # fails over a circle


def test_only_the_command_line_uses_click_and_rich() -> None:
    used = {
        name
        for name in modules()
        for node in statements(name)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom)
                       else [item.name for item in node.names])
        if module.split(".")[0] in ("click", "rich")
    }  # fmt: skip
    assert {name.split(".")[0] for name in used} == {"cli"}


def test_runs_results_and_reports_need_no_torch() -> None:
    code = "".join(
        f"import faceqan_toolkit.{name}\n"
        for name in modules()
        if name.split(".")[0] in ("settings", "runs", "results", "report")
    )
    assert python(code + "import sys; print('torch' in sys.modules)") == "False"


def test_evaluation_reads_without_torch_and_opencv() -> None:
    names = ("datasets.validation", "datasets.registry", "embeddings", "statistics", "calibrate")
    code = "".join(f"import faceqan_toolkit.evaluation.{name}\n" for name in names)
    assert python(code + "import sys; print({'torch', 'cv2'} & set(sys.modules))") == "set()"


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


@pytest.mark.parametrize("completing", [False, True])
def test_help_and_completion_import_nothing_heavy(completing: bool) -> None:
    shown = [f"{name} --help" for name in (*COMMANDS, "evaluate lfw", "evaluate validate")]
    typed = ["al", "evaluate lf", "evaluate lfw --"] if completing else [*shown, "--version"]
    code = f"""
import os, sys
from faceqan_toolkit.cli import cli
for typed in {typed!r}:
    if {completing}:
        os.environ["_FACEQAN_TOOLKIT_COMPLETE"] = "bash_complete"
        os.environ["COMP_WORDS"] = "faceqan-toolkit " + typed
        os.environ["COMP_CWORD"] = str(len(typed.split()))
    try:
        cli([] if {completing} else typed.split(), prog_name="faceqan-toolkit")
    except SystemExit as done:
        assert done.code == 0, done.code
    print("HEAVY", typed, sorted({HEAVY!r} & set(sys.modules)))
"""
    told = python(code).splitlines()
    assert [line for line in told if line.startswith("HEAVY")] == [
        f"HEAVY {words} []" for words in typed
    ]
    assert len(told) > 2 * len(typed) - 1, "nothing was shown"


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
