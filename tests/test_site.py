"""The documentation builds as a site, whole, and mistakes stop it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest

import faceqan_toolkit
from faceqan_toolkit.cli import cli
from tests.conftest import HANG

pytest.importorskip("mkdocs", reason="needs extra docs")
pytest.importorskip("mkdocstrings", reason="needs extra docs")
ROOT = Path(__file__).parents[1]


def build(checkout: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-d", str(site)],
        cwd=checkout, capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


class Links(HTMLParser):
    """Collects what a page links to and what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a":
            self.links.append(values.get("href") or "")
        else:
            self.loaded += filter(None, (values.get("src"), values.get("href")))


def links_of(page: Path) -> Links:
    parser = Links()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def test_every_page_is_reached_from_the_first_by_the_navigation(site: Path) -> None:
    reached = {
        (site / link.split("#")[0]).resolve()
        for link in links_of(site / "index.html").links
        if link and not link.startswith(("http", "#"))
    }
    pages = set(site.rglob("*.html")) - {site / "404.html", site / "search.html"}
    assert {page.resolve() for page in pages} <= {*reached, (site / "index.html").resolve()}
    named = {p.stem for p in pages}
    assert {page.stem for page in ROOT.glob("docs/*.md")} <= named


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for loaded in links_of(page).loaded:
            assert not re.match(r"(https?:)?//", loaded), (page.name, loaded)
            if page.name != "404.html" and not loaded.startswith("data:"):
                assert (page.parent / loaded.split("?")[0]).exists(), (page.name, loaded)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text(encoding="utf-8"))


def leaves(command: click.Command, name: str) -> dict[str, click.Command]:
    found = {name: command}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            child = command.get_command(context, inner)
            assert child is not None
            found |= leaves(child, f"{name} {inner}")
    return found


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    text = unescape((site / "commands.html").read_text(encoding="utf-8"))
    text = text.rpartition('id="help-of-every-command"')[2]
    parts = dict(re.findall(r'<h2 id="[^"]*">([^<]+)<.*?<pre><code>(.*?)</code></pre>', text, re.S))
    known = leaves(cli, "faceqan-toolkit")
    assert list(parts) == list(known)
    assert len(known) > 20
    for name, command in known.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert option in parts[name], (name, option)


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    for name in set(faceqan_toolkit.__all__) - {"__version__"}:
        home = getattr(faceqan_toolkit, name)
        assert f'id="{home.__module__}.{home.__qualname__}"' in text or (
            f'id="faceqan_toolkit.{name}"' in text
        ), name


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the site is made of."""
    folder = tmp_path / "checkout"
    for name in ("docs", "samples", "weights"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.safetensors", "raw_photos")
        )
    for path in [*ROOT.glob("*.md"), *ROOT.glob("mkdocs*")]:
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "faceqan_toolkit", folder / "faceqan_toolkit")
    return folder


@pytest.mark.slow
def test_a_new_page_and_what_it_links_to_come_in_by_themselves(checkout: Path, tmp_path) -> None:
    page = "# Brand new\n\n[Licence](../weights/LICENSE-SFace.txt), [top](../README.md#limits).\n"
    (checkout / "docs" / "brand-new.md").write_text(page, encoding="utf-8")
    done = build(checkout, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert "brand-new.html" in links_of(tmp_path / "site" / "speed.html").links
    links = links_of(tmp_path / "site" / "brand-new.html").links
    assert {"repository/weights/LICENSE-SFace.txt", "index.html#limits"} <= set(links)
    assert (tmp_path / "site" / "repository/weights/LICENSE-SFace.txt").is_file()


@pytest.mark.slow
def test_broken_links_stop_it(checkout: Path, tmp_path: Path) -> None:
    links = ("no.md", "../faceqan_toolkit/no.py", "speed.md#no")
    with (checkout / "docs" / "photos.md").open("a", encoding="utf-8") as page:
        page.writelines(f"\n[broken]({link})\n" for link in links)
    done = build(checkout, tmp_path / "site")
    assert done.returncode != 0
    for link in links:
        assert link.removeprefix("../") in done.stderr
