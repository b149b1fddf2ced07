"""Events of the library as people read them on standard error."""

from __future__ import annotations

import click

from faceqan_toolkit.cli.progress import Progress
from faceqan_toolkit.events import (
    Advanced,
    Ended,
    Event,
    Interrupted,
    Loaded,
    Message,
    Note,
    Planned,
    Started,
    Warned,
)
from faceqan_toolkit.wording import counted


class Reporter:
    """Shows events: lines, and a bar while things are being done."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Started):
            self._progress = Progress(event.total, event.unit)
            self._progress.__enter__()
        elif isinstance(event, Loaded) and self._progress:
            self._progress.loaded()
        elif isinstance(event, Advanced) and self._progress:
            self._progress.advance(list(event.records), event.number)
        elif isinstance(event, Ended) and self._progress:
            self._progress.__exit__(None if event.complete else RuntimeError)
            self._progress = None
        elif text := _text(event):
            click.echo(text, err=True)


def _text(event: Event) -> str:
    if isinstance(event, Warned):
        return f"Warning: {event.text}"
    if isinstance(event, Note):
        return f"Note: {event.text}"
    if isinstance(event, Message):
        return event.text
    if isinstance(event, Planned):
        text = counted(event.photos, "photo")
        return f"{text}, {event.known:,} of them done before" if event.known else text
    if isinstance(event, Interrupted):
        return (
            f"\nInterrupted. {event.done:,} of {event.total:,} photos are recorded in "
            f"{event.folder}; the same command goes on from there."
        )
    return ""
