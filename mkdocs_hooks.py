"""What the site's builder does beyond its configuration.

The README becomes the first page, files outside docs/ that pages link to come along below
repository/, pages that mkdocs.yml does not name stand at the end of the navigation, and the
commands' help is written out.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from faceqan_toolkit.cli import cli

ROOT = Path(__file__).parent
WIDTH = 88
"""Characters of a line of help that the page has room for."""
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.M | re.S)


def site_path(path: str) -> str:
    """Return where a file of the repository lies in the site."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


def linked(path: str, link: str) -> str | None:
    """Return the file of the repository that a link of a page means, None if it is none."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(link)))
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def pages() -> dict[str, str]:
    """Return all files of the site that mkdocs does not find itself, and all its pages.

    Returns:
        Path in the repository to path in the site: docs/, the README, and what they link to.
    """
    todo = ["README.md", *(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/**/*.md"))]
    found: dict[str, str] = {}
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found[path] = site_path(path)
        if path.endswith(".md"):
            text = CODE.sub("", (ROOT / path).read_text(encoding="utf-8"))
            todo += filter(None, (linked(path, match[2]) for match in LINK.finditer(text)))
    return found


def with_links_of_the_site(text: str, path: str) -> str:
    """Return a page's Markdown with links that hold in the site."""

    def replaced(match: re.Match[str]) -> str:
        target = linked(path, match[2])
        if target is None:
            return match[0]  # of another place, or broken: the builder says so
        here = posixpath.dirname(site_path(path))
        return f"{match[1]}{posixpath.relpath(site_path(target), here or '.')}{match[3] or ''})"

    parts = CODE.split(text)
    return "".join(part if odd % 2 else LINK.sub(replaced, part) for odd, part in enumerate(parts))


def _named(nav: Any) -> set[str]:
    """Return the pages that a navigation names."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*map(_named, nav.values() if isinstance(nav, dict) else nav))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add pages that the navigation does not name."""
    os.chdir(ROOT)  # for the references, which import the package from here
    known = _named(config.nav)
    more = sorted(page for page in pages().values() if page.endswith(".md") and page not in known)
    if more:
        config.nav = [*(config.nav or []), {"More": more}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README and what lies outside docs/."""
    for path, place in pages().items():
        if not path.startswith("docs/"):
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links within the repository into links within the site; write out the commands."""
    of_site = {place: path for path, place in pages().items()}
    markdown = with_links_of_the_site(markdown, of_site[page.file.src_uri])
    return markdown.replace("<!-- commands -->", "\n".join(command_help(cli, "faceqan-toolkit")))


def command_help(command: click.Command, name: str) -> Iterator[str]:
    """Yield a command's help as Markdown, then that of the commands within it."""
    context = click.Context(command, info_name=name, terminal_width=WIDTH)
    yield f"## {name}\n\n```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield from command_help(found, f"{name} {inner}")
