"""Events: what long work tells its caller while it runs. The library never prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from faceqan_toolkit.types import Record


@dataclass(frozen=True)
class Message:
    """A line for people, for instance which identity rule holds.

    Attributes:
        text: the line.
    """

    text: str


@dataclass(frozen=True)
class Note(Message):
    """A line that explains a result, for instance the licence of a model."""


@dataclass(frozen=True)
class Warned(Message):
    """A line about a likely mistake; the work goes on."""


@dataclass(frozen=True)
class NoPhotos(Note):
    """No photos were found, so there is nothing to do."""


@dataclass(frozen=True)
class Planned:
    """The photos of a run have been found and compared with its ledger.

    Attributes:
        photos: number of photos that were asked for.
        known: number of photos among them that need no work.
    """

    photos: int
    known: int


@dataclass(frozen=True)
class Started:
    """Work on a known number of things begins; models are loaded next.

    Attributes:
        total: number of things.
        unit: noun for one of them.
    """

    total: int
    unit: str = "photo"


@dataclass(frozen=True)
class Loaded:
    """Models are loaded; the time of processing starts here.

    Attributes:
        workers: number of pipelines side by side; 0 if the engine does not know it yet.
    """

    workers: int = 0


@dataclass(frozen=True)
class Advanced:
    """Some of the things that `Started` counted are done.

    Attributes:
        number: how many.
        records: of the photos among them; empty if the things are no photos.
    """

    number: int
    records: Sequence[Record] = ()


@dataclass(frozen=True)
class Timed:
    """Where the time went.

    Attributes:
        seconds: from the first photo to the last.
        workers: number of pipelines side by side.
        backend: what computed the attack; "" if nothing was scored.
        stages: seconds by stage, summed over workers.
    """

    seconds: float
    workers: int
    backend: str
    stages: Mapping[str, float]


@dataclass(frozen=True)
class Wrote:
    """A result is written.

    Attributes:
        file: the result.
    """

    file: Path


@dataclass(frozen=True)
class Ended:
    """The work that `Started` began is over.

    Attributes:
        complete: False if an error or Ctrl-C ended it.
    """

    complete: bool


@dataclass(frozen=True)
class Interrupted:
    """Ctrl-C ended the work; nothing that was done is lost.

    Attributes:
        done, total: number of photos that are recorded, and that were to be done.
        folder: the run folder.
    """

    done: int
    total: int
    folder: Path


Event: TypeAlias = (
    Message | Note | NoPhotos | Warned | Planned | Started | Loaded | Advanced | Timed | Wrote
    | Ended | Interrupted
)  # fmt: skip
Listener: TypeAlias = Callable[[Event], object]
"""Takes events, in the thread that called the library."""


def silent(event: Event) -> None:
    """Ignore an event."""


@contextmanager
def counting(tell: Listener, total: int, unit: str = "photo") -> Iterator[None]:
    """Send `Started` before the work inside, and `Ended` after it.

    Args:
        tell: gets the events.
        total, unit: see `Started`.
    """
    tell(Started(total, unit))
    complete = False
    try:
        yield
        complete = True
    finally:
        tell(Ended(complete))


def listener(progress: bool | Listener | None) -> Listener:
    """Return what takes events.

    Args:
        progress: a function; or True for what the command line shows, on standard error.
    """
    if callable(progress):
        return progress
    if not progress:
        return silent
    # by name, for the command line stands above the library
    shown: Listener = import_module("faceqan_toolkit.cli.reporter").Reporter()
    return shown
