"""A real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import HANG

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OpenReport = Callable[..., "Page"]


@pytest.fixture
def open_report(browser: Browser) -> Iterator[OpenReport]:
    """Open a page; at the end: no errors, no warnings, no requests but for local files."""
    told: list[str] = []
    contexts = []

    def watch(page: Page) -> None:
        page.on("console", lambda message: told.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: told.append(f"error: {error}"))
        page.on("dialog", lambda dialog: told.append(f"dialog: {dialog.message}"))
        page.on("websocket", lambda socket: told.append(f"socket: {socket.url}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:", "blob:"))
                else told.append(f"request: {request.url}")
            ),
        )

    def open_page(file: Path, **options: object) -> Page:
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "accept_downloads": True, **options}  # type: ignore[arg-type]
        )
        context.set_default_timeout(1000 * HANG)
        contexts.append(context)
        page = context.new_page()
        watch(page)
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert told == []
