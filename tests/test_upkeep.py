"""What noxfile.py and the list of licences say against pyproject.toml."""

from __future__ import annotations

import re

import pytest

from tests.test_docs_commands import ROOT, tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}


def test_every_dependency_of_users_is_on_the_page_of_licences() -> None:
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w.-]+) \| .* \| (.+) \|$", page, re.M))
    extras = PROJECT["optional-dependencies"]
    wanted = names(PROJECT["dependencies"])
    for extra in set(extras) - {"dev", "docs"}:
        wanted |= names(extras[extra])
    assert wanted <= set(rows)
    assert all(rows[name] != "see its files" for name in wanted)


def test_every_requirement_has_a_lower_bound_that_the_oldest_session_pins() -> None:
    pytest.importorskip("nox", reason="needs nox")
    import noxfile

    pinned = dict(pin.split("==") for pin in noxfile.lower_bounds())
    assert names(PROJECT["dependencies"]) <= set(pinned)
    assert pinned["torch"] == "2.6"
    assert f">={noxfile.OLDEST}" == PROJECT["requires-python"]
    extras = set(PROJECT["optional-dependencies"])
    assert set(noxfile.FOR_USERS.split(",")) == extras - {"dev", "docs"}
