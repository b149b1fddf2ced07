"""Paths that different tools wrote for the same photos, matched; errors that name a tool's file."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import ScoresError
from faceqan_toolkit.photos.stores import PHOTO_EXTENSIONS
from faceqan_toolkit.text import reason_of

RULES = ("exact", "end", "end without extension", "folder and name", "name")
"""Rules of matching, strictest first.

- exact: the same relative path.
- end: one path is the end of the other, in whole folders and names.
- end without extension: the same without the photos' extensions. A crop of this package
  (`a.jpg.0.png`) matches its photo, and so does one of FaceQnet (`a.jpg_2.jpg`), if it is the only
  one of the photo.
- folder and name: the same name without extension, in a folder of the same name. Not for names of
  digits only, which are ambiguous.
- name: the same name without extension, if on one side it begins with the name of its folder, as
  in LFW's `ann/ann_0001.jpg`. CR-FIQA has all photos of XQLFW in one folder.
"""

Parts = tuple[str, ...]
Key = Callable[[Parts], Parts | None]

_EXTENSION = "|".join(sorted(extension.lstrip(".") for extension in PHOTO_EXTENSIONS))
_CROP = rf"^(.+\.(?:{_EXTENSION}))(?:\.0\.png|_[0-9]+\.(?:{_EXTENSION}))\z"
_PHOTO = rf"^(.+)\.(?:{_EXTENSION})\z"

# the end of the text is \Z in Python and \z in RE2
_CROP_NAME, _PHOTO_NAME = (
    re.compile(ending.replace(r"\z", r"\Z"), re.IGNORECASE | re.DOTALL)
    for ending in (_CROP, _PHOTO)
)

BARE_NAME_SQL = rf"""
    regexp_replace(regexp_replace(regexp_extract(path, '[^/\\]*\z'),
        '{_CROP}', '\1', 'is'), '{_PHOTO}', '\1', 'is')
"""
"""SQL expression for the `bare_name` of a column `path`, for DuckDB."""


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn every error of reading a tool's file into a ScoresError that names the file.

    The ScoresErrors of the reader itself begin with the line number.
    """
    try:
        yield
    except ScoresError as error:
        raise ScoresError(f"{file}, {error}") from error
    except MemoryError as error:
        raise ScoresError(f"{file}: too large for this machine's memory") from error
    except Exception as error:  # on damaged files zip and header parsers can raise anything
        raise ScoresError(f"{file}: {reason_of(error)}") from error


def told_paths(
    *kinds: tuple[str, Sequence[str]], examples: int = 3, rest: str = " and"
) -> list[str]:
    """Return a clause for each kind that has paths: their number and some examples."""
    told = []
    for what, paths in kinds:
        if paths:
            more = f"{rest} {len(paths) - examples:,} more" if len(paths) > examples else ""
            told.append(f"{len(paths):,} {what}: {', '.join(paths[:examples])}{more}")
    return told


@dataclass(frozen=True)
class Match:
    """Result of matching N wanted paths with given paths.

    Attributes:
        index: (N,) int64 index of the given path for each wanted path, or -1.
        rules: number of matches by each of `RULES`.
        missing: wanted paths that match no given path.
        ambiguous: wanted paths that match several given paths, or share one; not matched.
        unused: given paths that were not matched.
    """

    index: NDArray[np.int64]
    rules: dict[str, int]
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self, examples: int = 5) -> list[str]:
        """Return a summary: number of matches by rule, and examples of unmatched paths."""
        matched = ", ".join(f"{count:,} by {rule}" for rule, count in self.rules.items() if count)
        shown = f"{sum(self.rules.values()):,} of {len(self.index):,} matched ({matched})"
        told = told_paths(
            ("without one", self.missing), ("not clear which", self.ambiguous),
            ("not used", self.unused), examples=examples, rest=", and",
        )  # fmt: skip
        return [shown if matched else f"none of {len(self.index):,} matched", *told]


def bare_name(path: str) -> str:
    """Return a path's name without extension; paths with different names never match.

    Examples:
        >>> bare_name("ann/1.jpg"), bare_name("ann/1.jpg.0.png"), bare_name("ann/v1.2")
        ('1', '1', 'v1.2')
    """
    return _bare(_parts(path))[-1]


def match_paths(wanted: Sequence[str], given: Sequence[str]) -> Match:
    r"""Match paths one to one, by the strictest of `RULES` that applies.

    Each rule is applied to the paths that the rules before it left over. A pair is a match only if
    neither path has another candidate under the rule; otherwise both are ambiguous and stay
    unmatched. Neither list has repetitions; slashes are forward or backward.

    Examples:
        >>> match = match_paths(["ann/1.jpg", "bob/1.jpg", "eve/1.jpg"],
        ...                     ["crops/bob/1.png", "/data/ann/1.jpg", "crops/joe/1.png"])
        >>> match.index.tolist()
        [1, 0, -1]
        >>> print(*match.lines(), sep="\n")
        2 of 3 matched (1 by end, 1 by end without extension)
        1 without one: eve/1.jpg
        1 not used: crops/joe/1.png
    """
    left = {place: _parts(path) for place, path in enumerate(wanted)}
    free = {place: _parts(path) for place, path in enumerate(given)}
    index = np.full(len(wanted), -1, np.int64)
    counts = {}
    ambiguous: set[int] = set()
    for rule in RULES:
        pairs, unclear, unclear_given = _one_to_one(left, free, _views(rule, left, free))
        for place, found in pairs.items():
            index[place] = found
        for place in (*pairs, *unclear):
            del left[place]
        for place in (*pairs.values(), *unclear_given):
            del free[place]
        counts[rule] = len(pairs)
        ambiguous |= unclear
    unused = set(range(len(given))).difference(index.tolist())
    return Match(
        index, counts, tuple(wanted[place] for place in left),
        tuple(wanted[place] for place in sorted(ambiguous)),
        tuple(given[place] for place in sorted(unused)),
    )  # fmt: skip


def _one_to_one(
    left: dict[int, Parts], free: dict[int, Parts], views: Iterator[tuple[Key, Key]]
) -> tuple[dict[int, int], set[int], set[int]]:
    """Return the unambiguous pairs, and the ambiguous paths of either side."""
    candidates: list[tuple[int, int]] = []
    unclear: set[int] = set()
    unclear_given: set[int] = set()
    for wanted_key, given_key in views:
        given = _grouped(free, given_key)
        for key, places in _grouped(left, wanted_key).items():
            others = given.get(key, [])
            if len(places) == len(others) == 1:
                candidates.append((places[0], others[0]))
            elif others:
                unclear.update(places)
                unclear_given.update(others)
    times, times_given = (Counter(pair[side] for pair in candidates) for side in (0, 1))
    pairs = {
        place: other
        for place, other in candidates
        if times[place] == times_given[other] == 1
        and place not in unclear and other not in unclear_given
    }  # fmt: skip
    unclear |= times.keys() - pairs.keys()
    return pairs, unclear, unclear_given | (times_given.keys() - set(pairs.values()))


def _grouped(paths: dict[int, Parts], key_of: Key) -> dict[Parts, list[int]]:
    groups: dict[Parts, list[int]] = defaultdict(list)
    for place, parts in paths.items():
        if (key := key_of(parts)) is not None:
            groups[key].append(place)
    return groups


def _views(rule: str, left: dict[int, Parts], free: dict[int, Parts]) -> Iterator[tuple[Key, Key]]:
    """Yield key functions for both sides; equal keys mean a match by the rule."""
    if rule == "exact":
        yield tuple, tuple
    elif rule == "folder and name":
        yield _folder_and_name, _folder_and_name
    elif rule == "name":
        yield _telling_name, _name
        yield _name, _telling_name
    else:
        shown: Callable[[Parts], Parts] = _bare if rule.endswith("extension") else tuple
        for depth in sorted({len(parts) for parts in left.values()}):
            yield _whole(depth, shown), _tail(depth, shown)
        for depth in sorted({len(parts) for parts in free.values()}):
            yield _tail(depth + 1, shown, drop=1), _whole(depth, shown)


def _whole(depth: int, shown: Callable[[Parts], Parts]) -> Key:
    return lambda parts: shown(parts) if len(parts) == depth else None


def _tail(depth: int, shown: Callable[[Parts], Parts], drop: int = 0) -> Key:
    """Return a key for paths of at least `depth` parts: their last `depth - drop` parts."""
    return lambda parts: shown(parts[drop - depth :]) if len(parts) >= depth else None


def _folder_and_name(parts: Parts) -> Parts | None:
    bare = _bare(parts)[-2:]
    return bare if len(bare) == 2 and not bare[1].isdigit() else None


def _name(parts: Parts) -> Parts:
    return _bare(parts)[-1:]


def _telling_name(parts: Parts) -> Parts | None:
    """Return a name that begins with its folder's name as a whole word and has a letter."""
    folder, name = ("", *_bare(parts))[-2:]
    rest = name.removeprefix(folder)
    if rest == name or rest[:1].isalnum() or not any(map(str.isalpha, name)):
        return None
    return (name,)


def _bare(parts: Parts) -> Parts:
    """Return a path without the extension of a photo or crop."""
    *folders, name = parts or ("",)
    for ending in (_CROP_NAME, _PHOTO_NAME):
        found = ending.match(name)
        name = found[1] if found else name
    return (*folders, name)


def _parts(path: str) -> Parts:
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))
