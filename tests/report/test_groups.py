"""The page's groups, in a real browser, against what `grouping` and `intervals` say."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.report import page as report_page
from faceqan_toolkit.report.page import write_report
from faceqan_toolkit.results.groups import (
    Grouping,
    GroupSummary,
    share_difference,
    summarise,
    wilson,
)
from faceqan_toolkit.runs.folder import RunInfo
from faceqan_toolkit.text import down_text
from tests.conftest import CommandLine
from tests.report.conftest import OpenReport
from tests.report.runs import EVIL, face, failed, large_run, make_run
from tests.report.test_browser import CONTRAST, TILE, counted, titles, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

ASSETS = Path(report_page.__file__).parent / "assets"
ROWS = "#groups tbody tr"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunInfo, Grouping]:
    """Sixty faces of five groups, one with a hostile name, one without a face; some in none."""
    folder = tmp_path_factory.mktemp("groups")
    names = ["old", "young", EVIL[0], "=1+1,\n</script>", ""]
    records, lines = [], []
    for n in range(60):
        path, name = f"{n % 7}/{n:02d}.jpg", names[(n * n + n // 7) % 11 % 5]
        worse = 0.15 if name == "old" else 0
        records.append(face(path, round(0.3 + 0.4 * ((n * 37) % 60) / 60 - worse, 4)))
        lines.append((path, name))
    records += [failed("x/none.jpg"), failed("x/more.jpg")]
    lines += [("x/none.jpg", "nobody"), ("not/here.jpg", "absent")]
    with (folder / "people.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "who <b>"), *lines])
    return make_run(folder / "run", records), Grouping("who <b>", folder / "people.csv")


@pytest.fixture(scope="module")
def file(made: tuple[RunInfo, Grouping]) -> Path:
    run, grouping = made
    return write_report(run, run.folder / "report.html", grouping=grouping).file


def cells(page: Page) -> dict[str, list[str]]:
    """Return the table's cells by the name of the group, in the order they stand."""
    rows = page.locator(ROWS).evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return {name: rest for name, *rest in rows}


def heads(page: Page) -> list[str]:
    return page.locator("#groups thead th").all_inner_texts()


def expected(item: GroupSummary, *, shares: bool) -> list[str]:
    def figure(value: float | None) -> str:
        return "\u2013" if value is None else down_text(value, 3)

    def sign(value: float) -> str:
        return f"{value:+.1f}".replace("-", "\u2212")

    found = [f"{item.faces:,}"]
    if shares and item.share is None:
        found += ["\u2013", "\u2013"]
    elif shares:
        share, low, high = (100 * x for x in (item.share, item.share_low, item.share_high))  # type: ignore[operator]
        found.append(f"{share:.1f} %{low:.1f} to {high:.1f}")
        apart, low, high = (
            100 * x  # type: ignore[operator]
            for x in (item.difference, item.difference_low, item.difference_high)
        )
        found.append(f"{sign(apart)} %{sign(low)} to {sign(high)}")
    quantiles = (item.q05, item.q25, item.median, item.q75, item.q95)
    return [*found, "", *map(figure, quantiles), f"{item.unscored:,}"]


def all_expected(found: list[GroupSummary], *, shares: bool = True) -> dict[str, list[str]]:
    return {item.group or "(none)": expected(item, shares=shares) for item in found}


def test_the_page_computes_the_packages_intervals(made, file: Path, open_report) -> None:
    source = (ASSETS / "intervals.js").read_text(encoding="utf-8")
    shares = [(count, total) for total in (1, 2, 7, 50, 9999) for count in range(0, total + 1)][::3]
    apart = list(zip(shares, reversed(shares), strict=True))
    ours, theirs = open_report(file).evaluate(
        f"""([shares, apart]) => {{
            {source}
            return [shares.map((pair) => wilson(...pair)),
                    apart.map((pairs) => difference(...pairs))];
        }}""",
        [shares, apart],
    )
    assert ours == [pytest.approx(wilson(*pair), abs=1e-12) for pair in shares]
    assert theirs == [pytest.approx(share_difference(*pair), abs=1e-12) for pair in apart]


def test_shares_follow_the_threshold(made, file: Path, open_report: OpenReport) -> None:
    run, grouping = made
    page = open_report(file)
    hold_timers(page)
    plain = cells(page)
    lowest_first = summarise(run, grouping)
    assert list(plain) == [item.group or "(none)" for item in lowest_first]
    assert {row[1] for row in plain.values()} == {"\u2013"}, "nobody goes yet"
    for below in (0.4, 0.51, 0.6543, 0.9):
        page.fill("#threshold-number", str(below))
        until(page, f"document.querySelector('#groups').textContent.includes('Below {below}')")
        found = summarise(run, grouping, below=below)
        assert cells(page) == all_expected(found)
        page.evaluate("held()")  # rows keep their places for a while
        order = [row[1] for row in cells(page).values()]
        shares = [float(text.split(" %")[0]) for text in order if "%" in text]
        assert shares == sorted(shares, reverse=True), "who is discarded most comes first"
    page.click("#keep-all")
    until(page, "document.querySelector('#groups').textContent.includes('Below the threshold')")
    assert cells(page) == plain


def hold_timers(page: Page) -> None:
    """Have the page start no timer; `held()` does what the last one was to do."""
    page.evaluate("window.setTimeout = (action) => { window.held = action; return 0; }")


def test_the_threshold_by_mouse_moves_the_shares(file: Path, open_report: OpenReport) -> None:
    page = open_report(file)
    hold_timers(page)
    box = page.locator("#bars").bounding_box()
    assert box
    page.mouse.move(box["x"] + 1, box["y"] + 70)
    page.mouse.down()
    order = None
    for step in range(2, 9):
        page.mouse.move(box["x"] + step * box["width"] / 10, box["y"] + 70)
        label = page.locator("#flag span").inner_text()
        until(page, f"document.querySelector('#groups').textContent.includes('Below {label}')")
        order = order or list(cells(page))
        assert list(cells(page)) == order, "rows stay in place under the eye"
    page.mouse.up()
    page.fill("#threshold-number", "0.5")
    until(page, "document.querySelector('#groups').textContent.includes('Below 0.5')")
    marks = page.locator("#groups .spread .threshold")
    assert marks.count() == len(order or []) - 1, "one has no face"


def test_it_opens_at_a_threshold(made, open_report: OpenReport, tmp_path: Path) -> None:
    run, grouping = made
    file = write_report(run, tmp_path / "r.html", grouping=grouping, below=0.45678).file
    page = open_report(file)
    assert page.input_value("#threshold-number") == "0.45678"
    found = summarise(run, grouping, below=0.45678)
    assert cells(page) == all_expected(found)
    assert page.locator("#stay b.go").inner_text() == str(sum(item.below or 0 for item in found))
    assert heads(page)[2].startswith("Below 0.45678")
    # without groups too
    page = open_report(write_report(run, tmp_path / "s.html", below=0.5).file)
    assert page.input_value("#threshold-number") == "0.500"
    assert page.locator("#groups-panel").count() == 0
    assert not page.locator("#group").is_visible()
    # below every face nothing goes
    page = open_report(write_report(run, tmp_path / "t.html", below=-3).file)
    assert page.locator("#stay b.go").inner_text() == "0"


def test_sorting_by_every_column(made, file: Path, open_report: OpenReport) -> None:
    page = open_report(file)
    hold_timers(page)
    page.fill("#threshold-number", "0.5")
    until(page, "window.held !== undefined")
    page.evaluate("held()")
    for place, title in enumerate(heads(page)):
        if title == "Spread":
            continue
        button = page.locator("#groups thead button").nth(place - (place > 4))
        seen = set()
        for _ in range(2):
            button.click()
            sorting = page.locator("#groups thead th").nth(place).get_attribute("aria-sort")
            assert page.locator("#groups [aria-sort]").count() == 1
            found = [
                row[place - 1] if place else name
                for name, row in cells(page).items()
                if name != "(none)"
            ]
            known = [text for text in found if text != "\u2013"]
            assert found[: len(known)] == known, "what is not known comes last"
            if place:
                known = [
                    float(re.match(r"[+-]?[\d.]+", text.replace("\u2212", "-"))[0])  # type: ignore[index]
                    for text in known
                ]
            assert known == sorted(known, reverse=sorting == "descending"), title
            seen.add(sorting)
        assert seen == {"ascending", "descending"}


def test_a_group_shows_its_faces(made, file: Path, open_report: OpenReport) -> None:
    _, grouping = made
    page = open_report(file)
    with grouping.file.open(newline="", encoding="utf-8") as lines:
        groups = {row["path"]: row["who <b>"] for row in csv.DictReader(lines)}
    before = page.title()
    for name in (EVIL[0], "=1+1,\n</script>"):
        page.locator("#groups .link", has_text=name.split("\n")[0]).click()
        wanted = {path for path, group in groups.items() if group == name}
        assert counted(page) == f"Selected: {len(wanted)} faces, 0 failures"
        assert set(titles(page)) == wanted
        assert page.evaluate("document.activeElement.id") == "results"
    assert page.title() == before
    assert page.locator("#groups img, #groups b b, #groups-title b, #group b").count() == 0
    assert page.locator("#groups-title").inner_text() == "Groups by who <b>"
    page.locator("#groups .link", has_text="nobody").click()
    assert counted(page) == "Selected: 0 faces, 1 failure"
    options = page.locator("#group option").all_text_contents()
    assert set(options) == {"all", "(none)", *filter(None, groups.values())} - {"absent"}
    page.locator("#groups .link", has_text="(none)").click()
    assert counted(page).endswith("faces, 1 failure"), "a row the file does not name"
    page.select_option("#group", "")
    assert counted(page) == "Selected: 60 faces, 2 failures"
    assert page.locator(TILE).count()


def test_everybody_can_read_it(file: Path, open_report: OpenReport) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    for options in ({}, {"color_scheme": "dark"}, phone):
        page = open_report(file, **options)
        page.fill("#threshold-number", "0.5")
        page.wait_for_selector("#groups b.go")
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate("document.documentElement.scrollWidth === innerWidth")
    region = page.get_by_role("region", name="Groups by who <b>").last
    assert region.evaluate("box => box.scrollWidth > box.clientWidth")
    region.focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('.scroll').scrollLeft > 0")
    assert page.get_by_role("rowheader", name="old").count() == 1
    page.emulate_media(media="print")
    assert page.locator("#groups").is_visible()


def test_a_sample_counts_no_shares(
    made, open_report: OpenReport, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(report_page, "FACE_LIMIT", 20)
    run, grouping = made
    plain = open_report(write_report(run, tmp_path / "a.html", grouping=grouping).file)
    assert cells(plain) == all_expected(summarise(run, grouping), shares=False)
    assert "Against all others" not in heads(plain)
    assert "report --below Q" in plain.locator("#groups-panel").inner_text()
    file = write_report(run, tmp_path / "b.html", grouping=grouping, below=0.5).file
    fixed = open_report(file)
    whole = all_expected(summarise(run, grouping, below=0.5))
    assert cells(fixed) == whole
    assert heads(fixed)[2].startswith("Below 0.5")
    fixed.fill("#threshold-number", "0.6")
    fixed.wait_for_timeout(500)
    assert cells(fixed) == whole, "they are of all faces, and stand still"
    assert fixed.locator("#groups button.link").count() == 0
    assert not fixed.locator("#group").is_visible()


def test_many_groups(open_report: OpenReport, tmp_path: Path, monkeypatch) -> None:
    """100,000 faces in 5,000 folders: the page draws some and lists some more."""
    monkeypatch.setattr(report_page, "GROUP_LIMIT", 1000)
    run = large_run(tmp_path / "run", 100_000)
    file = write_report(run, tmp_path / "r.html", pictures=False, grouping=Grouping()).file
    page = open_report(file)
    assert (
        "Of 5,000 groups the first 1,000 are listed" in page.locator("#groups-panel").inner_text()
    )
    assert page.locator(ROWS).count() == 50
    page.click("#groups-more")
    assert page.locator(ROWS).count() == 250
    page.fill("#threshold-number", "0.5")
    until(page, "document.querySelector('#groups').textContent.includes('Below 0.500')")
    assert page.locator(ROWS).count() == 250
    count, total = 10, 20
    low, high = wilson(count, total)
    first = cells(page)["person_0000"]
    assert first[:2] == ["20", f"50.0 %{100 * low:.1f} to {100 * high:.1f}"]


def test_groups_of_nothing(open_report: OpenReport, tmp_path: Path) -> None:
    for name, records in (("empty", []), ("failures", [failed("a.jpg")])):
        run = make_run(tmp_path / name, records)
        file = write_report(run, tmp_path / f"{name}.html", grouping=Grouping(), below=0.5).file
        assert not open_report(file).locator("#groups-panel").is_visible()
    run = make_run(tmp_path / "one", [face("a/x.jpg", 0.5)])
    page = open_report(write_report(run, tmp_path / "r.html", grouping=Grouping(), below=0.6).file)
    assert cells(page)["a"][:3] == ["1", "100.0 %20.7 to 100.0", "\u2013"]


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [face("a.jpg", 0.5)])
    found = make_run(tmp_path / "found", [], "detect")
    target = tmp_path / "r.html"
    with pytest.raises(SettingsError, match="not a finite number"):
        write_report(run, target, below=float("nan"))
    for options in ({"below": 0.5}, {"grouping": Grouping()}):
        with pytest.raises(RunError, match="has no scores; it was made by detect"):
            write_report(found, target, **options)  # type: ignore[arg-type]
    assert not target.exists()


def test_the_command(command_line: CommandLine, tmp_path: Path) -> None:
    make_run(tmp_path / "run", [face("a/1.jpg", 0.5), face("b/2.jpg", 0.4)])
    (tmp_path / "groups.csv").write_text("path,age\na/1.jpg,old\n")
    done = command_line(
        "report", "run", "--group-by", "age", "--groups", "groups.csv", "--below", "0.45"
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "Groups by <bdi>age</bdi>" in text
    assert '"below":0.45' in text
    for arguments, message in (
        (["--groups", "groups.csv"], "--groups goes with --group-by"),
        (["--group-by", "age"], "needs --groups FILE.csv"),
        (["--group-by", "sex", "--groups", "groups.csv"], "needs the columns path and sex"),
        (["--below", "nan"], "not a finite number"),
        (["--below", "70"], "no quality reaches 70"),
    ):
        refused = command_line("report", "run", *arguments)
        assert refused.returncode in (1, 2)
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
