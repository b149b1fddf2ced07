"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from faceqan_toolkit.text import counted
from faceqan_toolkit.types import Record

LOG_SECONDS = 10.0


class Progress:
    """Number of things done, rate, time left and failures, on standard error unless `quiet`.

    `total` is the number of things to do, `unit` a noun for one.
    """

    def __init__(self, total: int, unit: str = "photo", *, quiet: bool = False) -> None:
        self.total, self.done, self.failed = total, 0, 0
        self._unit = unit
        self._console = Console(stderr=True, quiet=quiet)
        self._started = self._logged = time.monotonic()
        self._bar = Bar(
            SpinnerColumn(), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
            TextColumn("{task.fields[failures]}", style="yellow"),
            console=self._console, speed_estimate_period=300,
            disable=not self._console.is_terminal, transient=True,
        )  # fmt: skip

    def __enter__(self) -> Progress:
        self._bar.start()
        self._task = self._bar.add_task("", total=self.total, rate="loading", failures="")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._bar.stop()
        if kind is None:
            done = counted(self.done, self._unit)
            self.print(f"{done} in {_duration(self.seconds)} ({self._rate()})")

    def print(self, text: str, colour: str | None = None) -> None:
        """Print a line above the bar."""
        self._console.print(Text(text, colour or ""), soft_wrap=True)

    def loaded(self) -> None:
        """Start the clock: models are loaded, photos follow."""
        self._started = time.monotonic()

    def advance(self, records: Sequence[Record], number: int = 1) -> None:
        """Count a number of things, and the failures among the records of photos."""
        self.done += number
        self.failed += sum(record.status != "ok" for record in records)
        failures = f"{self.failed:,} failed" if self.failed else ""
        self._bar.update(self._task, advance=number, rate=self._rate(), failures=failures)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._logged >= LOG_SECONDS:
            self._logged = now
            left = self.seconds / self.done * (self.total - self.done)
            done = f"{self.done:,}/{self.total:,} {self._unit}s"
            line = [done, self._rate(), f"{_duration(left)} left", failures]
            self.print(", ".join(filter(None, line)))

    @property
    def seconds(self) -> float:
        """Seconds since the clock started."""
        return time.monotonic() - self._started

    def _rate(self) -> str:
        rate = self.done / max(1e-9, self.seconds)
        if rate >= 1:
            return f"{rate:.1f} {self._unit}s/s"
        return f"{1 / max(rate, 1e-9):.1f} s/{self._unit}"


def _duration(seconds: float) -> str:
    """Return seconds as people say them: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
