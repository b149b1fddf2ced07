"""Make the sample photos from two public-domain portraits.

    python samples/make_samples.py --grace-hopper grace_hopper.jpg

The astronaut comes with scikit-image; Grace Hopper's portrait is the sample photo of matplotlib,
found by itself where matplotlib is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFilter, ImageOps

SOURCES = {
    "astronaut": "a8c429c18afa7b0fd5673e598d73a21225d94c864a71bbb3885126fdecb41071",
    "grace_hopper": "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
}
ORIENTATION = 0x0112  # the EXIF tag
TURN_RIGHT_TO_VIEW = 6  # its value for a camera held upright, stored sideways


def jpeg(image: Image.Image, quality: int = 92, exif: Image.Exif | None = None) -> bytes:
    """Return the picture as a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=exif or Image.Exif())
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """Return the picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def noisy(image: Image.Image, sigma: float, seed: int) -> Image.Image:
    """Return the picture with Gaussian noise of `sigma` grey levels."""
    noise = np.random.default_rng(seed).normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def dark(image: Image.Image, factor: float) -> Image.Image:
    """Return the picture underexposed, with a sensor's noise."""
    dimmed = Image.fromarray((np.asarray(image) * factor).astype(np.uint8))
    return noisy(dimmed, sigma=2, seed=1)


def half_covered(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Return the picture with a grey card over a box."""
    covered = image.copy()
    ImageDraw.Draw(covered).rectangle(box, fill=(96, 104, 112))
    return covered


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """Return the picture reduced."""
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def two_people(left: Image.Image, right: Image.Image) -> Image.Image:
    """Return two portraits side by side, the right one smaller."""
    right = scaled(right, 0.75)
    canvas = Image.new("RGB", (left.width + right.width, left.height), (200, 200, 200))
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width, left.height - right.height))
    return canvas


def cut_out(image: Image.Image) -> Image.Image:
    """Return the picture with everything outside an oval transparent."""
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse((60, 10, image.width - 60, image.height - 40), fill=255)
    image = image.copy()
    image.putalpha(mask.filter(ImageFilter.GaussianBlur(3)))
    return image


def sideways(image: Image.Image, *, with_exif: bool) -> bytes:
    """Return the picture stored lying on its side; only EXIF can tell viewers."""
    exif = Image.Exif()
    if with_exif:
        exif[ORIENTATION] = TURN_RIGHT_TO_VIEW
    return jpeg(image.transpose(Image.Transpose.ROTATE_90), exif=exif)


def samples(astronaut: Image.Image, hopper: Image.Image) -> dict[str, bytes]:
    """Return every sample file by its path."""
    clean = jpeg(astronaut)
    blur: Callable[[float], ImageFilter.GaussianBlur] = ImageFilter.GaussianBlur
    return {
        "astronaut.jpg": clean,
        "astronaut_blurred.jpg": jpeg(astronaut.filter(blur(4))),
        "astronaut_dark.jpg": jpeg(dark(astronaut, 0.12)),
        "astronaut_noisy.jpg": jpeg(noisy(astronaut, sigma=30, seed=2), quality=15),
        "astronaut_sideways_exif.jpg": sideways(astronaut, with_exif=True),
        "astronaut_sideways_no_exif.jpg": sideways(astronaut, with_exif=False),
        "astronaut_thumbnail.jpg": jpeg(scaled(astronaut, 0.13)),
        "corrupt.jpg": clean[: len(clean) * 2 // 5],
        "hopper.jpg": jpeg(hopper),
        "hopper_blurred.jpg": jpeg(hopper.filter(blur(5))),
        "hopper_cut_out.png": png(cut_out(hopper)),
        "hopper_dark.jpg": jpeg(dark(hopper, 0.12)),
        "hopper_half_occluded.jpg": jpeg(half_covered(hopper, (140, 255, 380, 400))),
        "hopper_tiny.jpg": jpeg(scaled(hopper, 0.2)),
        "more/hopper_grey.png": png(ImageOps.grayscale(hopper)),
        "no_face.png": png(astronaut.crop((330, 300, 512, 482))),
        "two_people.jpg": jpeg(two_people(astronaut, hopper)),
    }


def check(name: str, data: bytes) -> None:
    """Stop if a source is not the one the samples were made from."""
    found = hashlib.sha256(data).hexdigest()
    if found != SOURCES[name]:
        raise SystemExit(f"{name}: sha256 {found}, expected {SOURCES[name]}")


def find_grace_hopper() -> Path:
    """Return matplotlib's sample photo."""
    try:
        from matplotlib.cbook import get_sample_data
    except ImportError:
        raise SystemExit(
            "matplotlib is not installed: name its photo with --grace-hopper"
        ) from None
    return Path(get_sample_data("grace_hopper.jpg", asfileobj=False))


def main() -> None:
    """Write all samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grace-hopper", type=Path, help="matplotlib's grace_hopper.jpg")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "raw_photos")
    options = parser.parse_args()
    astronaut = Image.fromarray(skimage.data.astronaut())
    check("astronaut", astronaut.tobytes())
    hopper_data = (options.grace_hopper or find_grace_hopper()).read_bytes()
    check("grace_hopper", hopper_data)
    hopper = Image.open(io.BytesIO(hopper_data)).convert("RGB")
    for name, data in samples(astronaut, hopper).items():
        file = options.output / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        print(f"{hashlib.sha256(data).hexdigest()[:16]}  {len(data):>7}  {name}")


if __name__ == "__main__":
    main()
