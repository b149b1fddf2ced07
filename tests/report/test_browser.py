"""The page in a real browser. `open_report` fails on errors, warnings and network requests."""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faceqan_toolkit.report import page as report_page
from faceqan_toolkit.report.page import write_report
from faceqan_toolkit.results.ranking import Ranking
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import down_text
from faceqan_toolkit.types import Record
from tests.conftest import HANG
from tests.report.conftest import OpenReport
from tests.report.runs import EVIL, face, failed, large_run, make_run, mixed_run, write_photo

if TYPE_CHECKING:
    from playwright.sync_api import Page

TILE = "#faces .tile"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunInfo, Path]:
    folder = tmp_path_factory.mktemp("mixed")
    run = mixed_run(folder / "run")
    return run, write_report(run, folder / "run/report.html").file


def names(page: Page) -> list[str]:
    """Return the file names of the faces in sight, in reading order."""
    return page.locator(f"{TILE} .name").all_text_contents()


def titles(page: Page) -> list[str]:
    return page.locator(TILE).evaluate_all("tiles => tiles.map((tile) => tile.title)")


def counted(page: Page) -> str:
    return page.locator("#selected").inner_text()


def stay(page: Page) -> int:
    return int(page.locator("#stay b.stay").inner_text().replace(",", ""))


def until(page: Page, condition: str) -> None:
    """Wait for a JavaScript condition; the page's policy forbids Playwright's own way."""
    deadline = time.monotonic() + HANG
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def downloaded(page: Page) -> str:
    with page.expect_download() as waiting:
        page.click("#download")
    return Path(waiting.value.path()).read_bytes().decode("utf-8")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_faces_stand_from_best_to_worst(mixed, open_report: OpenReport) -> None:
    run, file = mixed
    page = open_report(file)
    ranked = [row for row in Ranking(run).rows() if row["rank"]]
    assert titles(page) == [row["path"] for row in ranked]
    scores = page.locator(f"{TILE} .score b").all_text_contents()
    assert scores == [down_text(row["quality"], 4) for row in ranked]
    percentiles = page.locator(f"{TILE} .score span").all_text_contents()
    assert percentiles == ["P100", *(f"P{down_text(row['percentile'], 1)}" for row in ranked[1:])]
    assert counted(page) == "Selected: 12 faces, 3 failures"
    assert page.locator("#median").inner_text() == "0.5150"


def test_hostile_names_do_nothing(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file)
    title = page.title()
    page.locator(TILE).first.click()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    page.click("#tab-failures")
    page.locator("#failures .failure").first.click()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.title() == title
    assert page.locator("#faces b b, #failures b, #detail img[src=x]").count() == 0
    assert set(EVIL) < set(titles(page))


def test_the_threshold_changes_the_count(mixed, open_report: OpenReport) -> None:
    run, file = mixed
    page = open_report(file)
    qualities = [row["quality"] for row in Ranking(run).rows() if row["quality"] is not None]
    assert stay(page) == 12
    page.fill("#threshold-number", "0.5")
    assert stay(page) == sum(quality >= 0.5 for quality in qualities) == 8
    assert page.locator("#stay b.go").inner_text() == "4"
    assert "66.7 %" in page.locator("#stay").inner_text()
    until(page, "document.querySelectorAll('#faces .tile.going').length === 4")
    page.fill("#share", "25")
    assert stay(page) == 3
    page.fill("#share", "0")
    assert stay(page) == 0
    page.click("#keep-all")
    assert stay(page) == 12


def test_every_printed_number_keeps_its_face(open_report: OpenReport, tmp_path: Path) -> None:
    """As a threshold on the page, as it is there and as files print it; like `--min-quality`."""
    qualities = [0.49996, 0.5, 0.7614999, 0.7615, 0.76150004, 0.1 + 1e-9, 1 / 3, -0.00004, 0.9]
    run = make_run(tmp_path / "run", [face(f"{q}.jpg", q) for q in qualities])
    page = open_report(write_report(run, tmp_path / "run/report.html").file)
    tiles = page.locator(f"{TILE} .score b").all_text_contents()
    assert tiles == [down_text(quality, 4) for quality in sorted(qualities, reverse=True)]
    for decimals in (4, 6):
        for number in (down_text(quality, decimals) for quality in qualities):
            page.fill("#threshold-number", number)
            assert stay(page) == sum(quality >= float(number) for quality in qualities), number
    for quality in qualities:  # of jsonl; the page knows six decimals
        page.fill("#threshold-number", repr(quality))
        assert stay(page) >= sum(other >= quality for other in qualities)
    for number in set(tiles):
        page.fill("#from", number)
        page.fill("#to", number)
        assert len(titles(page)) == tiles.count(number)


def test_the_share_that_is_shown_chooses_the_same_faces(
    open_report: OpenReport, tmp_path: Path
) -> None:
    run = large_run(tmp_path / "run", 3001)
    page = open_report(write_report(run, tmp_path / "run/report.html", pictures=False).file)
    for number in (1, 1234, 2999):
        page.fill("#threshold-number", down_text(1 - number / 3001, 6))
        assert stay(page) == number
        share = float(page.locator("#share").input_value())
        assert math.floor(3001 * share / 100 + 0.5) == number, "as filter --keep-top counts"
        page.fill("#share", str(share))
        assert stay(page) == number


def test_the_threshold_by_mouse(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file)
    box = page.locator("#bars").bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 1, middle)
    page.mouse.down()
    counts = []
    for step in range(1, 11):
        page.mouse.move(box["x"] + step * box["width"] / 10, middle)
        counts.append(stay(page))
    page.mouse.up()
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[4] > counts[9]
    # the line is where the pointer is
    page.mouse.click(box["x"] + box["width"] / 3, middle)
    low, high, value = page.locator("#threshold").evaluate("t => [+t.min, +t.max, +t.value]")
    assert value == pytest.approx(low + (high - low) / 3, abs=(high - low) / 100)
    flag = page.locator("#flag").bounding_box()
    assert flag
    assert flag["x"] == pytest.approx(box["x"] + box["width"] / 3, abs=3)


def test_the_threshold_by_touch(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    box = page.locator("#bars").bounding_box()
    assert box
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 40)
    assert 0 < stay(page) < 12


def test_the_threshold_by_keyboard(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file)
    page.focus("#threshold")
    page.keyboard.press("End")
    assert stay(page) <= 1
    page.keyboard.press("Home")
    assert stay(page) == 12
    before = float(page.input_value("#threshold"))
    page.keyboard.press("ArrowRight")
    step = float(page.input_value("#threshold")) - before
    assert step > 0
    page.keyboard.press("PageUp")
    assert float(page.input_value("#threshold")) - before == pytest.approx(51 * step)
    spoken = page.get_attribute("#threshold", "aria-valuetext")
    assert spoken
    assert "faces stay" in spoken


def test_filters(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file)

    def shown() -> tuple[int, int]:
        numbers = [int(word) for word in counted(page).replace(",", "").split() if word.isdigit()]
        return numbers[0], numbers[1]

    page.fill("#text", "QUOTED")
    assert titles(page) == [EVIL[2]]
    assert shown() == (1, 0)
    page.fill("#text", "rotate found")
    assert shown() == (0, 1)
    page.click("#reset")
    until(page, "document.getElementById('selected').textContent.includes('12 faces')")
    page.fill("#folder", "a")
    assert shown() == (2, 2)
    assert stay(page) == 2, "the histogram follows"
    page.fill("#folder", ".")
    assert shown() == (sum("/" not in name for name in EVIL), 1)
    page.fill("#folder", "")
    page.fill("#from", "0.5")
    page.fill("#to", "0.52")
    assert shown() == (3, 0)
    page.fill("#from", "")
    page.fill("#to", "")
    page.select_option("#status", "unreadable")
    assert shown() == (0, 1)
    assert page.get_attribute("#tab-failures", "aria-selected") == "true"
    page.select_option("#status", "ok")
    assert shown() == (12, 0)
    page.select_option("#status", "")
    page.fill("#threshold-number", "0.5")
    page.select_option("#show", "stay")
    assert shown() == (8, 0)
    page.select_option("#show", "go")
    assert shown() == (4, 0)
    page.fill("#text", "no such name")
    assert page.locator("#panel-faces .empty").inner_text() == "Nothing matches the filters."


def test_sorting_by_any_number(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file)
    best_first = titles(page)
    page.select_option("#order", "up")
    assert titles(page) == best_first[::-1]
    page.select_option("#sort", "confidence")
    assert names(page)[-1] == "confidence 0.9700"
    page.select_option("#order", "up")
    assert titles(page)[:4] == ["b/3.jpg", "a/2.jpg", *best_first[:2]]
    page.select_option("#sort", "path")
    assert titles(page) == sorted(best_first)


def test_the_download_of_everything_is_rankings_csv(
    mixed, open_report: OpenReport, tmp_path: Path
) -> None:
    run, file = mixed
    Ranking(run).export(tmp_path / "rankings.csv", "csv")
    text = downloaded(open_report(file))
    assert text == (tmp_path / "rankings.csv").read_bytes().decode("utf-8")


def test_the_download_holds_the_selection(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file)
    page.fill("#from", "0.51")
    page.fill("#to", "0.53")
    page.select_option("#sort", "path")
    rows = rows_of(downloaded(page))
    assert [row["path"] for row in rows] == [f"'{EVIL[3]}", EVIL[2], EVIL[1]]
    assert [row["quality"] for row in rows] == ["0.530000", "0.520000", "0.510000"]
    page.click("#reset")
    page.fill("#text", "damaged")
    (row,) = rows_of(downloaded(page))
    assert row["reason"] == '\'=damaged: </script><b>x</b>, "x"\nline'
    page.fill("#text", "")
    page.fill("#threshold-number", "0.565")
    page.select_option("#show", "stay")
    (row,) = rows_of(downloaded(page))
    assert row["rank"] == "1"


def test_a_face_in_detail(open_report: OpenReport, tmp_path: Path) -> None:
    write_photo(tmp_path / "p/a.png", (200, 30, 60), (300, 400))
    records = [
        face("a.png", (0.99 * 0.99 * 0.97) ** 5, str(tmp_path / "p"), crop="crops/a.png.0.png"),
        face("gone.png", 0.2, str(tmp_path / "p")),
        failed("b.png", "unreadable", "empty; very"),
    ]
    run = make_run(tmp_path / "run", records)
    write_photo(tmp_path / "run/crops/a.png.0.png", (10, 200, 30), (112, 112))
    page = open_report(write_report(run, tmp_path / "run/report.html").file)
    page.locator(TILE).first.click()
    detail = page.locator("#detail")
    assert page.locator("#detail-title").inner_text() == "a.png face 0"
    page.wait_for_selector("#detail .photo svg")
    assert page.locator("#detail .photo svg").get_attribute("viewBox") == "-0.5 -0.5 400 300"
    box = page.locator("#detail .photo rect.box")
    assert [box.get_attribute(name) for name in ("x", "y", "width", "height")] == [
        "20", "25", "50", "60",
    ]  # fmt: skip
    assert page.locator("#detail .photo circle").count() == 5
    shown = page.locator("#detail .frame img").bounding_box()
    drawn = page.locator("#detail .frame svg").bounding_box()
    assert shown == drawn
    # the crop's colour, from the sheet inside the page
    pixel = page.evaluate(
        """async () => {
            const image = document.querySelector("#detail .crop img");
            await image.decode();
            const canvas = document.createElement("canvas");
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            return [...context.getImageData(50, 50, 1, 1).data];
        }"""
    )
    assert pixel == pytest.approx([10, 200, 30, 255], abs=4)
    assert detail.locator(".part").count() == 3
    assert "0.990 \u00d7 0.990 \u00d7 0.970" in detail.inner_text()
    assert "embedding norm\n12.5" in detail.inner_text()
    detail.locator("summary").click()
    record = page.evaluate("JSON.parse(document.querySelector('#detail pre').textContent)")
    assert (record["path"], record["rank"], record["box_x1"]) == ("a.png", 1, 20)
    page.keyboard.press("ArrowRight")
    assert page.locator("#position").inner_text() == "2 of 2"
    assert detail.locator(".photo").count() == 0
    assert "moved, deleted, changed" in detail.inner_text()
    assert detail.locator(".part").count() == 0, "its parts do not make up its score"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#position").inner_text() == "1 of 2"
    page.click("#close")
    assert not detail.is_visible()
    page.click("#tab-failures")
    page.locator(".failure").click()
    assert "empty; very" in detail.inner_text()


def test_originals_are_opened_where_they_lie(
    open_report: OpenReport, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(report_page, "EMBED_FACES", 0)
    monkeypatch.setattr(report_page, "COPY_PHOTOS", 0)
    name = "50%41 ünï #1?.png"
    write_photo(tmp_path / "p" / "50%41 ünï #1?.png", (200, 30, 60), (300, 400))
    from faceqan_toolkit.text import path_text

    run = make_run(tmp_path / "run", [face(path_text(name), 0.5, str(tmp_path / "p"))])
    page = open_report(write_report(run, tmp_path / "run/report.html").file)
    page.locator(TILE).first.click()
    page.wait_for_selector("#detail .photo svg")
    assert page.locator("#detail .photo svg").get_attribute("viewBox") == "-0.5 -0.5 400 300"


def test_pictures_in_the_folder(open_report: OpenReport, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(report_page, "EMBED_FACES", 0)
    write_photo(tmp_path / "p/a.png", (200, 30, 60), (300, 400))
    records = [face("a.png", 0.5, str(tmp_path / "p"), crop="crops/a.png.0.png")]
    run = make_run(tmp_path / "run", records)
    write_photo(tmp_path / "run/crops/a.png.0.png", (10, 200, 30), (112, 112))
    page = open_report(write_report(run, tmp_path / "run/my report#1.html").file)
    loaded = "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    assert page.locator(f"{TILE} img").evaluate(loaded) == [896, 112]
    page.locator(TILE).click()
    assert page.locator("#detail .frame img").evaluate(loaded) == [400, 300]


def test_new_columns_are_shown(open_report: OpenReport, tmp_path: Path, monkeypatch) -> None:
    """Whatever the ranking has is shown, here columns that its SQL makes up."""
    from faceqan_toolkit.results import ranking

    extra = (
        "'blurred; <b>small</b>' AS made_up_text, 12.5::DOUBLE AS made_up_number, "
        "84::BIGINT AS made_up_whole"
    )
    monkeypatch.setattr(
        ranking, "RANKED", f"SELECT *, {extra} FROM ({ranking.RANKED}) ORDER BY rank NULLS LAST"
    )
    columns = (*ranking.SCORED_COLUMNS, "made_up_text", "made_up_number", "made_up_whole")
    monkeypatch.setattr(ranking, "SCORED_COLUMNS", columns)
    monkeypatch.setattr(ranking, "TEXTS", (*ranking.TEXTS, "made_up_text"))
    monkeypatch.setitem(ranking.DECIMALS, "made_up_number", 1)
    run = make_run(tmp_path / "run", [face("a.jpg", 0.5)])
    page = open_report(write_report(run, tmp_path / "r.html").file)
    sortable = page.locator("#sort option").all_text_contents()
    assert {"made up number", "made up whole"} < set(sortable)
    page.fill("#text", "blurred")
    assert counted(page) == "Selected: 1 face, 0 failures"
    (row,) = rows_of(downloaded(page))
    assert (row["made_up_text"], row["made_up_number"]) == ("blurred; <b>small</b>", "12.5")
    page.locator(TILE).click()
    text = page.locator("#detail").inner_text()
    assert "made up text\nblurred\n<b>small</b>" in text
    assert "made up number\n12.5" in text
    assert "made up whole\n84" in text


def test_everything_by_keyboard(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.title"))
        if reached[-1] == EVIL[-1]:
            break
    order = [
        *("threshold", "threshold-number", "share", "keep-all", "text", "folder", "status"),
        *("from", "to", "show", "sort", "order", "reset", "tab-faces", "download", EVIL[-1]),
    ]
    assert [stop for stop in reached if stop in order] == order
    focused = "document.activeElement.dataset.place"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "2"
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == "2", "there are ten to a line, no face below"
    page.keyboard.press("End")
    assert page.evaluate(focused) == "11"
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == "1"
    page.keyboard.press("Enter")
    assert page.locator("#position").inner_text() == "2 of 12"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    until(page, f"{focused} === '2'")  # back to where the reader was


def test_screen_readers_are_told(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select")].filter((control) =>
            !(control.getAttribute("aria-label") || control.labels?.length || control.innerText)
        ).map((control) => control.id)"""
    )
    assert nameless == []
    assert page.get_attribute(f"{TILE} >> nth=0", "aria-label") == (
        f"{EVIL[-1]}, rank 1, quality 0.5700, percentile 100"
    )
    faces = page.locator("#faces")
    assert faces.get_attribute("aria-rowcount") == "2"
    assert page.get_attribute("html", "lang") == "en"


CONTRAST = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const over = ([r, g, b, alpha = 1], below) =>
        [r, g, b].map((part, i) => part * alpha + below[i] * (1 - alpha));
    const light = (rgb) => {
        const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = rgb.map((part) => linear(part / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (node) => {
        const chain = [];
        for (let at = node; at; at = at.parentElement) chain.unshift(getComputedStyle(at));
        const colours = chain.map((style) => parse(style.backgroundColor));
        return colours.reduce((below, colour) => over(colour, below), [255, 255, 255]);
    };
    const poor = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        if (!own || !node.checkVisibility()) continue;
        if (node.closest("script, [aria-disabled=true], .rank")) continue;
        const background = behind(node);
        const ink = over(parse(getComputedStyle(node).color), background);
        const [low, high] = [light(ink), light(background)].sort((a, b) => a - b);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.5) poor.push([node.className, node.textContent.slice(0, 30), ratio]);
    }
    return poor;
}"""
"""Texts with less contrast than WCAG 2 AA asks for."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough(mixed, open_report: OpenReport, scheme: str) -> None:
    _, file = mixed
    page = open_report(file, color_scheme=scheme)
    page.fill("#threshold-number", "0.5")
    page.wait_for_selector(f"{TILE}.going")
    assert page.evaluate(CONTRAST) == []
    page.locator(TILE).first.click()
    assert page.evaluate(CONTRAST) == []
    page.keyboard.press("Escape")
    page.click("#tab-failures")
    assert page.evaluate(CONTRAST) == []
    page_colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (page_colour == "rgb(14, 17, 21)") is (scheme == "dark")


def test_a_phone_needs_no_sideways_scrolling(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.locator("#filter-box summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("#faces .line").first.locator(".tile").count() == 3
    page.locator(TILE).first.click()
    assert page.evaluate("document.getElementById('detail').scrollWidth") <= 390
    assert page.locator("#next").is_visible()


def test_printing(mixed, open_report: OpenReport) -> None:
    _, file = mixed
    page = open_report(file)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#print .tile").count() == 12
    assert page.locator("#print .failure").count() == 3
    assert page.locator("#print .tables").is_visible()
    assert not page.locator("#filters").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#print").count() == 0
    assert page.pdf().startswith(b"%PDF")


def test_an_empty_run(open_report: OpenReport, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [])
    page = open_report(write_report(run, tmp_path / "run/report.html").file)
    assert page.locator("#panel-faces .empty").inner_text() == "This run has no faces."
    assert not page.locator("#threshold-panel").is_visible()
    assert page.locator("#download").is_disabled()
    page.fill("#text", "x")
    page.click("#tab-failures")
    assert page.locator("#panel-failures .empty").inner_text() == "Nothing failed."


def test_runs_without_a_score(open_report: OpenReport, tmp_path: Path) -> None:
    run = make_run(tmp_path / "f", [failed("a.jpg"), failed("b.jpg", "missing")])
    page = open_report(write_report(run, tmp_path / "f/report.html").file)
    assert page.locator("#failures .failure").count() == 2, "what there is is shown"
    record = Record(path="a.jpg", root="/p", face=0, status="ok", confidence=0.9)
    run = make_run(tmp_path / "d", [record], "detect")
    page = open_report(write_report(run, tmp_path / "d/report.html").file)
    assert titles(page) == ["a.jpg"]
    assert not page.locator("#range").is_visible()
    assert downloaded(page).startswith("path,face,confidence,")


def test_one_score_alone(open_report: OpenReport, tmp_path: Path) -> None:
    for quality in (-0.02, 0.0, 0.5, 31.7):
        run = make_run(tmp_path / f"run{quality}", [face("a.jpg", quality)])
        page = open_report(write_report(run, tmp_path / "r.html").file)
        assert stay(page) == 1
        page.fill("#threshold-number", str(quality + 0.01))
        assert stay(page) == 0


def test_a_hundred_thousand_faces(open_report: OpenReport, tmp_path: Path) -> None:
    number = 100_000
    run = large_run(tmp_path / "run", number)
    file = write_report(run, tmp_path / "run/report.html", pictures=False).file
    page = open_report(file)
    assert stay(page) == number

    def nodes() -> int:
        return page.evaluate("document.querySelectorAll('*').length")

    assert nodes() < 1500
    page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    until(page, "document.querySelector('#faces .line:last-child .score b').textContent < '0.6'")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    until(
        page,
        f"document.querySelector('#faces [data-place=\"{number - 1}\"]') !== null",
    )
    assert nodes() < 1500
    # the count moves while the line does
    counts = page.evaluate(
        """() => [0.2, 0.4, 0.8].map((value) => {
            const slider = document.getElementById("threshold");
            slider.value = value;
            slider.dispatchEvent(new Event("input"));
            return document.querySelector("#stay b.stay").textContent;
        })"""
    )
    assert counts == ["80,000", "60,000", "20,000"], "at once, not a frame later"
    page.fill("#threshold-number", "0.25")
    assert stay(page) == 75_000
    page.fill("#text", "person_0042")
    assert counted(page) == "Selected: 20 faces, 0 failures"
    page.fill("#text", "")
    page.locator(TILE).first.focus()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.place") == str(number - 1)
    rows = rows_of(downloaded(page))
    assert len(rows) == number
    assert rows[-1]["quality"] == "0.000000"
