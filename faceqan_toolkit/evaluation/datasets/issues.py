"""What is wrong with a data set, told with file and line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from faceqan_toolkit.errors import ProtocolError

SEVERITY = {
    "missing_list": "error",
    "unreadable_list": "error",
    "header": "error",
    "row_count": "error",
    "malformed_row": "error",
    "unknown_sample": "error",
    "contradicting_label": "error",
    "missing_file": "error",
    "unreadable_photo": "error",
    "duplicate_pair": "warning",
    "self_pair": "warning",
    "contradicting_identity": "warning",
    "same_photo": "warning",
    "no_identity": "warning",
    "several_identities": "warning",
    "several_folders": "warning",
    "official_count": "note",
    "extra_file": "note",
}
"""Kinds of issues; with an error there is no evaluation, but for `missing_file` and
`unreadable_photo`, which only a validation looks for: those photos count as failures to enrol."""

KEPT_OF_A_KIND = 1000
"""More are counted, but not kept one by one."""


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong.

    Attributes:
        kind: a key of `SEVERITY`.
        message: what it is, in a sentence without a full stop.
        file: where, as text; empty if it is no single file.
        line: of that file, from 1.
    """

    kind: str
    message: str
    file: str = ""
    line: int | None = None

    @property
    def severity(self) -> str:
        """Return "error", "warning" or "note"."""
        return SEVERITY[self.kind]

    def __str__(self) -> str:
        where = self.file + (f", line {self.line}" if self.line else "")
        return f"{where}: {self.message}" if where else self.message


class IssueLog:
    """Collects issues while a data set is read.

    Attributes:
        counts: all issues, by kind.
        issues: the first `KEPT_OF_A_KIND` of every kind, in the order they were found.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.issues: list[Issue] = []

    def add(
        self, kind: str, message: str, file: str = "", line: int | None = None, number: int = 1
    ) -> None:
        """Note an issue.

        Args:
            kind: a key of `SEVERITY`.
            message: see `Issue`.
            file: see `Issue`.
            line: see `Issue`.
            number: how many of them this one stands for.
        """
        issue = Issue(kind, message, file, line)
        assert issue.severity
        if self.counts[kind] < KEPT_OF_A_KIND:
            self.issues.append(issue)
        self.counts[kind] += number

    def number(self, severity: str) -> int:
        """Return how many issues of a severity there are."""
        return sum(number for kind, number in self.counts.items() if SEVERITY[kind] == severity)

    def raise_errors(self, name: str = "") -> None:
        """Do nothing if there is no error.

        Args:
            name: of the protocol, if its lists do not tell.

        Raises:
            ProtocolError: the first of them, and how many more there are.
        """
        errors = [issue for issue in self.issues if issue.severity == "error"]
        if errors:
            more = self.number("error") - 1
            rest = f" (and {more} more; validate lists them)" if more else ""
            raise ProtocolError(f"{name}: {errors[0]}{rest}" if name else f"{errors[0]}{rest}")
