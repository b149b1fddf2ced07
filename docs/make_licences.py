"""Writes docs/licences.md: the licence of everything that is installed with the package.

nox -s licences
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

EXTRAS = ("heif", "openvino", "onnx", "remote", "ray", "evaluate")
HEADER = """\
# Licences of the dependencies

What `pip install faceqan-toolkit` brings along on Linux, and its extras, as the packages themselves
declare it; `nox -s licences` writes this page anew. None of them is part of this package; the
weights that are have their own page ([weights/README.md](../weights/README.md)). Wheels may carry
libraries under further licences: OpenCV's FFmpeg (LGPL), pillow-heif's libheif and libde265 (LGPL)
and x265 (GPL), torch's for NVIDIA GPUs NVIDIA's own, which are proprietary. Whoever passes such an
installation on has to look into them.

| package | needed for | licence |
|---|---|---|
"""


def licence_of(package: Distribution) -> str:
    """Return the licence a package declares, as short as it says it."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classes = metadata.get_all("Classifier") or []
    named = [text.split(" :: ")[-1] for text in classes if text.startswith("License :: ")]
    named = [name for name in named if name != "OSI Approved"]
    if named:
        return ", ".join(named)
    lines = str(metadata.get("License") or "").strip().splitlines()
    return lines[0] if lines and len(lines[0]) < 60 else "see its files"


def needs(package: Distribution, extra: str = "") -> set[str]:
    """Return the names of the packages that one asks for."""
    found = set()
    for requirement in package.requires or []:
        marker = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if (marker[1] if marker else "") == extra:
            found.add(normal(re.split(r"[\s\[<>=!~;(]", requirement)[0]))
    return found


def normal(name: str) -> str:
    """Return a package's name as every other spelling of it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: set[str]) -> dict[str, Distribution]:
    """Return these packages, as far as they are installed, and all they need."""
    found: dict[str, Distribution] = {}
    todo = set(names)
    while todo:
        name = todo.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # for another system or Python
        found[name] = package
        todo |= needs(package) - set(found)
    return found


def table() -> str:
    """Return the page."""
    package = distribution("faceqan-toolkit")
    base = closure(needs(package))
    rows = {name: ("all", found) for name, found in base.items()}
    for extra in EXTRAS:
        for name, found in closure(needs(package, extra)).items():
            rows.setdefault(name, (f"extra `{extra}`", found))
    lines = [
        f"| {name} | {what} | {licence_of(found).replace('|', '/')} |"
        for name, (what, found) in sorted(rows.items())
    ]
    return HEADER + "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("licences.md").write_text(table(), encoding="utf-8")
