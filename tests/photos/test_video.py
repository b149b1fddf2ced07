"""Frames of videos that OpenCV writes."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from faceqan_toolkit.errors import MissingPhoto, PhotoError, SettingsError
from faceqan_toolkit.photos.decode import decode
from faceqan_toolkit.photos.find import ArchiveOptions, find_photos, locate
from faceqan_toolkit.photos.stores import LocalFile
from faceqan_toolkit.photos.video import Every, VideoArchive, _player, parse_every
from faceqan_toolkit.types import PhotoSource
from tests.photos.makers import frame, write_video


def taken(path: Path, every: str = "1s") -> list[PhotoSource]:
    return list(find_photos([path], options=ArchiveOptions(parse_every(every))))


def shown(source: PhotoSource) -> int:
    """Return the frame's number, as its bars tell it."""
    pixels = decode(source, max_pixels=10_000).pixels
    return sum((pixels[36, 8 * bit + 4].mean() > 128) << bit for bit in range(6))


@pytest.mark.parametrize(
    ("name", "code"), [("a.mp4", "mp4v"), ("b.avi", "MJPG"), ("c.mkv", "mp4v")]
)
def test_frames_have_their_numbers(tmp_path: Path, name: str, code: str) -> None:
    path = write_video(tmp_path / name, 45, code=code)
    assert [source.path.rpartition("/")[2] for source in taken(path, "15")] == [
        "00000000-0.000s.png", "00000015-1.500s.png", "00000030-3.000s.png",
    ]  # fmt: skip
    sources = taken(path, "0.7s")
    numbers = [int(source.path.rpartition("/")[2][:8]) for source in sources]
    assert numbers == [0, 7, 14, 21, 28, 35, 42]
    # whatever the order in which they are asked for
    for order in (sources, sources[::-1], sources[3:] + sources[:3]):
        for source in order:
            again = pickle.loads(pickle.dumps(locate(source.root, source.path)))
            assert shown(again) == int(source.path.rpartition("/")[2][:8])
    assert [len(taken(path, every)) for every in ("1s", "1", "0.001s")] == [5, 45, 45]


@pytest.mark.parametrize("start", [0, 50])
def test_times_that_begin_late_and_vary(tmp_path: Path, start: int) -> None:
    """The frame of a number is the first at its time or later, counted from the first frame."""
    path, times = tmp_path / "a.mkv", [*range(8), 20, 21, 22, *range(30, 50)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 10)
        for number, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(frame(number), format="rgb24")
            picture.pts, picture.time_base = start + time, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    (source,) = taken(path, "1000")
    folder = source.path.rpartition("/")[0]
    rate = _player(LocalFile(path), LocalFile(path).state()).rate
    wanted = {
        number: next((at for at, time in enumerate(times) if time / 10 >= (number - 0.5) / rate))
        for number in range(int(4.8 * rate))
    }
    for order in (sorted(wanted), sorted(wanted, reverse=True), [*range(5, 12), 40, 9, 41, 3]):
        found = {
            number: shown(locate(source.root, f"{folder}/{number:08d}-{number / rate:.3f}s.png"))
            for number in order
        }
        assert found == {number: wanted[number] for number in order}


def test_the_same_frame_has_the_same_bytes(tmp_path: Path) -> None:
    sources = taken(write_video(tmp_path / "a.mp4", 30), "7")
    first = [source.content.read() for source in sources]
    assert [source.content.read() for source in sources[::-1]] == first[::-1]
    assert Image.open(io.BytesIO(first[0][0])).format == "PNG"


def test_turned_videos_are_turned(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    struct.pack_into(">9i", data, matrix, 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # a quarter right
    path.write_bytes(data)
    pixels = decode(taken(path)[0], max_pixels=10_000).pixels
    upright = np.rot90(frame(0), -1)
    assert pixels.shape == upright.shape == (64, 48, 3)
    assert np.abs(pixels.astype(int) - upright).mean() < 12


def test_broken_videos_are_one_record(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", 20).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    (tmp_path / "empty.avi").write_bytes(b"")
    for name, reason in (
        ("cut.mp4", "not a video that can be read"),
        ("text.mp4", "not a video in a supported format"),
        ("empty.avi", "not a video in a supported format"),
        ("gone.mp4", "no such file"),
    ):
        (source,) = find_photos(["-"], stdin=io.BytesIO(str(tmp_path / name).encode()))
        assert source.path.endswith(name)
        with pytest.raises(PhotoError, match=reason):
            decode(source, max_pixels=10_000)
    # and nothing besides, where no other part of the program has opened a video
    code = f"""
from faceqan_toolkit.photos.find import find_photos
print(len(list(find_photos([{str(tmp_path / "cut.mp4")!r}]))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_video_that_ends_early_gives_the_frames_it_has(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.avi", 40, code="MJPG").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(whole[: len(whole) // 2])
    good, bad = [], set()
    for source in taken(path, "10"):
        try:
            good.append(shown(source))
        except PhotoError as error:
            bad.add(error.reason)
    assert (good, bad) == ([0], {"the video ends, or is damaged, before this frame"})


@pytest.mark.parametrize("text", ["0", "-1", "0s", "nans", "infs", "x", "", "s", "1.5", "1e400s"])
def test_every_is_checked(text: str) -> None:
    with pytest.raises(SettingsError, match="`every`"):
        parse_every(text)


def test_every_is_frames_or_seconds() -> None:
    assert parse_every("10") == Every(10)
    assert parse_every("0.5s") == Every(seconds=0.5)


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000])
def test_a_number_that_no_frame_has(tmp_path: Path, number: str) -> None:
    with pytest.raises(MissingPhoto):
        VideoArchive(LocalFile(tmp_path / "a.mp4")).find(f"{number}-1.000s.png")
