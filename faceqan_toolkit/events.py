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
    """A line for people, for instance which identity rule holds."""

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
    """Of `photos` photos that were found for a run, `known` need no work."""

    photos: int
    known: int


@dataclass(frozen=True)
class Started:
    """Work on `total` things begins, called `unit` each; models are loaded next."""

    total: int
    unit: str = "photo"


@dataclass(frozen=True)
class WorkerReady:
    """A worker process or actor has loaded its models; sent for replacements, too.

    `device` is where its networks run, for instance "cuda:0"; `host` a machine of a Ray cluster, ""
    for this one.
    """

    pid: int
    device: str
    host: str = ""


@dataclass(frozen=True)
class Loaded:
    """Models are loaded, in `workers` pipelines (0: not known yet); processing starts here."""

    workers: int = 0


@dataclass(frozen=True)
class Advanced:
    """`number` of the things that `Started` counted are done; photos among them have records."""

    number: int
    records: Sequence[Record] = ()


@dataclass(frozen=True)
class Timed:
    """Seconds from the first photo to the last, and by stage, summed over workers.

    `backend` is the library that computed the attack, "" if nothing was scored.
    """

    seconds: float
    workers: int
    backend: str
    stages: Mapping[str, float]


@dataclass(frozen=True)
class Wrote:
    """A result file is written."""

    file: Path


@dataclass(frozen=True)
class Ended:
    """The work that `Started` began is over; `complete` is False after an error or Ctrl-C."""

    complete: bool


@dataclass(frozen=True)
class Interrupted:
    """Ctrl-C ended the work after `done` of `total` photos, which are recorded in a run folder."""

    done: int
    total: int
    folder: Path


Event: TypeAlias = (
    Message | Note | NoPhotos | Warned | Planned | Started | WorkerReady | Loaded | Advanced
    | Timed | Wrote | Ended | Interrupted
)  # fmt: skip
Listener: TypeAlias = Callable[[Event], object]
"""Takes events, in the thread that called the library."""


def silent(event: Event) -> None:
    """Ignore an event."""


@contextmanager
def counting(tell: Listener, total: int, unit: str = "photo") -> Iterator[None]:
    """Send `Started` before the work inside, and `Ended` after it."""
    tell(Started(total, unit))
    complete = False
    try:
        yield
        complete = True
    finally:
        tell(Ended(complete))


def listener(progress: bool | Listener | None) -> Listener:
    """Return a function that takes events: `progress`, or if True the command line's reporter."""
    if callable(progress):
        return progress
    if not progress:
        return silent
    # by name, for the command line stands above the library
    shown: Listener = import_module("faceqan_toolkit.cli.reporter").Reporter()
    return shown
