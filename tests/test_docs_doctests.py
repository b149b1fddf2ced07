"""The examples in docstrings."""

from __future__ import annotations

import doctest
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import faceqan_toolkit


def modules() -> Iterator[ModuleType]:
    """Yield the package's modules, but for those whose extra is missing."""
    for found in pkgutil.walk_packages(faceqan_toolkit.__path__, "faceqan_toolkit."):
        if found.name == "faceqan_toolkit.__main__":  # would run
            continue
        try:
            yield import_module(found.name)
        except ModuleNotFoundError as error:
            if str(error.name).startswith("faceqan_toolkit"):
                raise


def test_they_show_what_comes_out() -> None:
    results = {module.__name__: doctest.testmod(module) for module in modules()}
    assert not {name: result for name, result in results.items() if result.failed}
    assert sum(result.attempted for result in results.values()) >= 19
    assert results["faceqan_toolkit.text"].attempted == 13


def test_one_that_is_wrong_is_found() -> None:
    assert doctest.testmod(ModuleType("wrong", ">>> 1 + 1\n3\n")).failed == 1
