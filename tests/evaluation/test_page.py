"""The page: what it holds, that names cannot break out, and that a browser draws it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faceqan_toolkit.evaluation.page import SHARES, page
from tests.conftest import HANG
from tests.evaluation.conftest import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def text(evaluations) -> str:
    return page(evaluations, {"command": f"evaluate {HOSTILE}"})


def test_names_are_text(text: str) -> None:
    read = Reader(text)
    assert not [tag for tag, _ in read.tags if tag == "b"]
    assert not [attrs for _, attrs in read.tags if any(name.startswith("on") for name in attrs)]
    assert read.text.count(HOSTILE) >= 4
    assert [tag for tag, _ in read.tags].count("script") == 2


def test_nothing_is_loaded(text: str) -> None:
    addresses = set(re.findall(r"\w+://[^\"' )]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    read = Reader(text)
    for tag, attrs in read.tags:
        assert "src" not in attrs
        assert tag != "link" or attrs["href"] == "data:,"
    assert "default-src 'none'" in text


def test_data_are_the_curves(text: str, evaluations) -> None:
    raw = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data = json.loads(raw.group(1))
    assert data["shares"] == SHARES.tolist()
    for drawn, one in zip(data["evaluations"], evaluations, strict=True):
        assert [method["name"] for method in drawn["methods"]] == [m.name for m in one.methods]
        for point, index in zip(drawn["points"], range(len(one.points)), strict=True):
            for values, method in zip(point["curves"], one.methods, strict=True):
                assert values == pytest.approx(
                    method.figures[index].curve.at(SHARES), rel=1e-4, abs=1e-12
                )


def test_tables_are_there_without_scripts(text: str, evaluations) -> None:
    read = Reader(text)
    sections = [attrs for tag, attrs in read.tags if tag == "section"]
    assert len(sections) == sum(len(one.points) for one in evaluations)
    assert not any("hidden" in attrs for attrs in sections)
    area = evaluations[0].method("FaceQAN").figures[0].areas[0]
    assert f"{area.normalised:.3f}" in read.text
    assert "Careful: the " in read.text


def test_same_evaluations_same_page(evaluations, text: str) -> None:
    assert page(evaluations, {"command": f"evaluate {HOSTILE}"}) == text


def test_plain_page(plain) -> None:
    text = page([plain])
    assert "<footer>" not in text
    assert "over identities" not in text


def test_in_a_browser(text: str, evaluations, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    tab = browser.new_page()
    tab.set_default_timeout(1000 * HANG)
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda message: problems.append(message.text))
    tab.on(
        "request",
        lambda request: (
            None if request.url.startswith(("file:", "data:")) else problems.append(request.url)
        ),
    )
    tab.goto((tmp_path / "page.html").as_uri())
    methods = len(evaluations[0].methods)
    assert tab.locator("#plot g path").count() == methods
    assert tab.locator("section.table:visible").count() == 1

    tab.select_option("#evaluation", "1")
    tab.select_option("#point", "0")
    assert tab.locator("section.table:visible h2").inner_text() == "XQLFW, sface, FMR 0.1"
    box = tab.locator("#plot").bounding_box()
    scale = box["width"] / 640
    tab.mouse.move(box["x"] + scale * (58 + 570 * 0.2 / 0.95), box["y"] + box["height"] / 2)
    assert tab.locator("#where").inner_text() == "FNMR with 20 % discarded"
    rate = evaluations[1].method("FaceQAN").figures[0].curve.at(0.2)
    assert tab.locator('output[data-name="FaceQAN"]').inner_text() == f"{rate:.4f}"

    tab.locator("#legend label").first.click()
    assert tab.locator("#plot g path").count() == methods - 1
    tab.select_option("#limit", "0.2")
    assert tab.locator("#plot text").all_text_contents()[:3] == ["0", "0.05", "0.1"]
    back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.click("#theme")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != back
    tab.close()
    assert problems == []
