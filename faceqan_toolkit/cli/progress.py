"""How far a run is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from faceqan_toolkit.types import Record

LOG_SECONDS = 10.0


class Progress:
    """Photos done, rate, time left and failures so far, on standard error.

    Args:
        total: photos to do.
        unit: what they are called.

    Attributes:
        done: photos done so far.
        failed: records without a result so far.
    """

    def __init__(self, total: int, unit: str = "photo") -> None:
        self.total, self.done, self.failed = total, 0, 0
        self._unit = unit
        console = Console(stderr=True)
        self._started = self._logged = time.monotonic()
        self._task: TaskID | None = None
        self._bar = Bar(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failures]}", style="yellow"),
            console=console,
            speed_estimate_period=300,
            disable=not console.is_terminal,
            transient=True,
        )
        self._console = console

    def __enter__(self) -> Progress:
        self._bar.start()
        self._task = self._bar.add_task("", total=self.total, rate="loading", failures="")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._bar.stop()
        if kind is None:
            print_line = (
                f"{self.done:,} {self._unit}s in {_duration(self.seconds)} ({self._rate()})"
            )
            self._console.print(print_line, highlight=False, soft_wrap=True)

    def loaded(self) -> None:
        """Begin to count the time: networks are loaded, photos follow."""
        self._started = time.monotonic()

    def advance(self, records: list[Record], number: int = 1) -> None:
        """Count a photo, or several, given their records."""
        self.done += number
        self.failed += sum(record.status != "ok" for record in records)
        failures = f"{self.failed:,} failed" if self.failed else ""
        assert self._task is not None
        self._bar.update(self._task, advance=number, rate=self._rate(), failures=failures)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._logged >= LOG_SECONDS:
            self._logged = now
            left = self.seconds / self.done * (self.total - self.done)
            line = f"{self.done:,}/{self.total:,} {self._unit}s, {self._rate()}, "
            line += f"{_duration(left)} left"
            self._console.print(
                f"{line}, {failures}" if failures else line, highlight=False, soft_wrap=True
            )

    @property
    def seconds(self) -> float:
        """Seconds since the first photo was begun."""
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
