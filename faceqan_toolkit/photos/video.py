"""Videos as folders of frames, decoded by OpenCV."""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from faceqan_toolkit.errors import MissingPhoto, SettingsError, UnreadablePhoto
from faceqan_toolkit.photos.stores import LocalFile, Store
from faceqan_toolkit.threads import quiet_opencv
from faceqan_toolkit.types import FileState

VIDEO_EXTENSIONS = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"))
FRAME = re.compile(r"(\d{1,18})-(\d+\.\d+)s\.png")
"""Name of a frame: number and time."""
AHEAD = 120
"""Most frames that are skipped one by one; to go farther, the player seeks."""
MAX_RATE = 1000.0
_TOO_SHORT = "the video ends, or is damaged, before this frame"


@dataclass(frozen=True)
class Every:
    """Sampling of frames: one in N frames, or one in N seconds; SettingsError for anything else."""

    frames: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.frames, self.seconds) if value is not None]
        if len(given) != 1 or not 0 < given[0] < math.inf:
            raise SettingsError("`every` takes a number of frames, as 10, or of seconds, as 0.5s")

    def number(self, index: int, rate: float) -> int:
        """Return the frame number of the index-th sample."""
        if self.frames is not None:
            return index * self.frames
        assert self.seconds is not None
        # at most every frame once
        return round(index * max(self.seconds * rate, 1))


def parse_every(text: str) -> Every:
    """Return the sampling for the text of `--every`.

    Examples:
        >>> parse_every("10"), parse_every("0.5s")
        (Every(frames=10, seconds=None), Every(frames=None, seconds=0.5))
        >>> [parse_every("0.5s").number(index, rate=25.0) for index in range(4)]
        [0, 12, 25, 38]
    """
    try:
        return Every(seconds=float(text[:-1])) if text.endswith("s") else Every(int(text))
    except ValueError:
        return Every()  # raises the error that names the accepted values


@dataclass(frozen=True)
class VideoArchive:
    """The frames of a video on this machine, see `archives.Archive`: `NUMBER-SECONDSs.png`.

    Times count from the first frame. Frame number n is the first frame at n / rate seconds or
    later, so it is the same after seeking, also in videos of varying rate.
    """

    store: Store
    every: Every = Every(seconds=1.0)

    def members(self) -> Iterator[tuple[str, Frame]]:
        """Yield names and contents without decoding."""
        state = self.store.state()
        player = _player(self.store, state)
        index = 0
        while (number := self.every.number(index, player.rate)) < player.frames:
            yield f"{number:08d}-{number / player.rate:.3f}s.png", Frame(self.store, number)
            index += 1

    def find(self, name: str) -> Frame:
        """Return a frame."""
        parsed = FRAME.fullmatch(name)
        if not parsed:
            raise MissingPhoto(f"no frame of {self.store.name}")
        return Frame(self.store, int(parsed[1]))


@dataclass(frozen=True)
class Frame:
    """One frame. Its state is that of the video."""

    store: Store
    number: int

    def state(self) -> FileState:
        """Return the video's state."""
        return self.store.state()

    def read(self) -> tuple[bytes, FileState]:
        """Return the frame as PNG and the video's state."""
        state = self.store.state()
        return _player(self.store, state).png(self.number), state


class _Player:
    """An open video; fastest if frames are requested in order."""

    def __init__(self, store: Store, state: FileState) -> None:
        if not isinstance(store, LocalFile):
            raise UnreadablePhoto("videos must be on this machine; copy it here first")
        with store.open() as file:
            if not _looks_like_video(file.read(12)):
                raise UnreadablePhoto("not a video in a supported format, or damaged at its start")
        self._path = os.fspath(store.file)
        self._lock = threading.Lock()
        with self._lock, quiet_opencv:
            import cv2

            self._open()
            self._capture.grab()
            # time of the first frame; only some OpenCV versions subtract it
            self._zero = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            self._open()
            self.rate = float(self._capture.get(cv2.CAP_PROP_FPS))
            if not 0 < self.rate <= MAX_RATE:
                raise UnreadablePhoto(f"a video of {self.rate:g} frames a second")
            self._end: float = math.inf  # lowest frame number known to be beyond the end
            count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
            if not 0 < count <= state.size:  # the header has no plausible number
                count = sum(1 for _ in iter(self._capture.grab, False))
                self._open()
            self.frames = int(count)

    def png(self, number: int) -> bytes:
        """Return an upright frame as PNG."""
        with self._lock, quiet_opencv:
            import cv2

            if number >= self._end:
                raise UnreadablePhoto(_TOO_SHORT)
            self._go_to(number)
            self._next = number + 1
            good, pixels = self._capture.retrieve()
            if not good or pixels is None or not pixels.size:
                raise UnreadablePhoto("the video is damaged at this frame")
            _, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            return bytes(encoded.tobytes())

    def _open(self) -> None:
        import cv2

        self._capture: Any = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG)
        # number after the current frame, and its time
        self._next, self._time = 0, -math.inf
        if not self._capture.isOpened():
            raise UnreadablePhoto("not a video that can be read, or damaged")

    def _go_to(self, number: int) -> None:
        import cv2

        wanted = (number - 0.5) / self.rate * 1000
        back = 0  # frames before it to seek to; 0 reads on from the current frame
        if not 0 <= number - self._next <= AHEAD:
            back = 1
        elif self._time >= wanted:
            return  # a gap in a video of varying rate: the current frame is still shown
        while True:
            if back:
                start = max(0, number - back)
                self._open()
                if start:
                    self._capture.set(cv2.CAP_PROP_POS_FRAMES, start)
            if not self._capture.grab():
                if back and number - back > 0:
                    back *= 16
                    continue
                self._open()
                self._end = min(self._end, number)
                raise UnreadablePhoto(_TOO_SHORT)
            self._time = self._capture.get(cv2.CAP_PROP_POS_MSEC) - self._zero
            if back and number - back > 0 and self._time >= wanted:
                back *= 16  # the seek went too far
                continue
            back = 0
            if self._time >= wanted:
                return


@lru_cache(2)
def _player(store: Store, state: FileState) -> _Player:
    return _Player(store, state)


def _looks_like_video(start: bytes) -> bool:
    """Tell video containers from playlists, which could name other files."""
    return (
        start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or start[:4] in (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3")
        or (start[:4] == b"RIFF" and start[8:12] == b"AVI ")
    )
