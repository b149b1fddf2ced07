"""Archives made without the code under test."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

MAGIC = struct.pack("<I", 0xCED7230A)


def picture(shade: int = 0, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def record(data: bytes) -> bytes:
    """Return a record, in parts where the data hold the magic number at a multiple of four."""
    pieces, start = [], 0
    for place in range(0, len(data) - 3, 4):
        if data[place : place + 4] == MAGIC:
            pieces.append(data[start:place])
            start = place + 4
    pieces.append(data[start:])
    flags = [0] if len(pieces) == 1 else [1, *[2] * (len(pieces) - 2), 3]
    return b"".join(
        MAGIC + struct.pack("<I", flag << 29 | len(piece)) + piece + b"\0" * (-len(piece) % 4)
        for flag, piece in zip(flags, pieces, strict=True)
    )


def labelled(label: float | list[float], key: int, image: bytes) -> bytes:
    if isinstance(label, list):
        head = struct.pack("<IfQQ", len(label), 0.0, key, 0)
        return head + struct.pack(f"<{len(label)}f", *label) + image
    return struct.pack("<IfQQ", 0, label, key, 0) + image


def write_rec(path: Path, records: dict[int, bytes], *, index: bool = True) -> Path:
    lines, position = [], 0
    with path.open("wb") as file:
        for key, data in records.items():
            lines.append(f"{key}\t{position}\n")
            position += file.write(record(data))
    if index:
        path.with_suffix(".idx").write_text("".join(lines))
    return path


def insightface_rec(path: Path, people: list[list[bytes]], *, index: bool = True) -> Path:
    """Write a set as InsightFace lays it out: header, photos, identities."""
    photos = [(label, photo) for label, person in enumerate(people) for photo in person]
    count = len(photos)
    records = {0: labelled([count + 1.0, count + 1.0 + len(people)], 0, b"")}
    records |= {
        key: labelled(float(label), key, photo) for key, (label, photo) in enumerate(photos, 1)
    }
    first = 1
    for label, person in enumerate(people):
        key = count + 1 + label
        records[key] = labelled([float(first), float(first + len(person))], key, b"")
        first += len(person)
    return write_rec(path, records, index=index)


def frame(number: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Return a frame with a bright left upper corner and its number in six dark or bright bars."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 255
    for bit in range(6):
        pixels[height // 2 :, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
    return pixels


def write_video(path: Path, frames: int, rate: float = 10, code: str = "mp4v") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, (64, 48))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(frame(number))
    writer.release()
    return path
