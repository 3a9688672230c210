"""Small pictures in every format, made here, and what becomes of them when bytes are hit at random.

Run as a program it decodes damaged ones, in a process of its own that may crash, and prints what came out as JSON.
"""

import faulthandler
import io
import json
import random
import re
import struct
import sys
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from nstudent.data.decode import decode
from nstudent.errors import ImageError
from PIL import Image, features


def picture(height: int = 24, width: int = 16) -> np.ndarray:
    """Smooth, so that JPEG keeps it; a different colour in every corner, so that no turn or mirror looks the same."""
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    channels = [230 * (1 - down) + 20, 200 * right + 30, 120 * down * right + 60]
    return np.stack(channels, axis=2).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def jpeg(side: int = 64, mode: str = "RGB", **options: Any) -> bytes:
    return encoded(Image.fromarray(picture(side, side)).convert(mode), "JPEG", quality=92, **options)


def rgba_of(colour: tuple[int, int, int], alpha: int) -> Image.Image:
    image = Image.new("RGBA", (16, 16), (*colour, 255))
    image.paste((*colour, alpha), (0, 0, 8, 16))
    return image


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def animation(image_format: str) -> bytes:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    return encoded(frames[0], image_format, save_all=True, append_images=frames[1:], duration=50)


WHOLE = {
    "jpeg": lambda: jpeg(24),
    "grey jpeg": lambda: jpeg(24, mode="L"),
    "cmyk jpeg": lambda: jpeg(24, mode="CMYK"),
    "png": lambda: encoded(picture(), "PNG"),
    "16-bit png": lambda: encoded(Image.fromarray(np.full((16, 16), 999, dtype=np.uint16)), "PNG"),
    "rgba png": lambda: encoded(rgba_of((9, 8, 7), 99), "PNG"),
    "gif": lambda: encoded(picture(), "GIF"),
    "bmp": lambda: encoded(picture(), "BMP"),
    "tiff": lambda: encoded(picture(), "TIFF"),
    "compressed tiff": lambda: encoded(picture(), "TIFF", compression="tiff_lzw"),
    "turned jpeg": lambda: jpeg(24, exif=turned()),
    "palette png": lambda: encoded(Image.fromarray(picture()).quantize(8), "PNG"),
    "animated gif": lambda: animation("GIF"),
    "animated webp": lambda: animation("WEBP"),
    "webp": lambda: encoded(picture(), "WEBP"),
}
if features.check("avif"):
    WHOLE["avif"] = lambda: encoded(picture(), "AVIF")


def mutant(content: bytes, chance: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        # Headers are where decoders break: half of the hits go there.
        at = chance.randrange(min(64, len(changed)) if chance.random() < 0.5 else len(changed))
        changed[at] = chance.randrange(256)
    return bytes(changed[: chance.randrange(1, len(changed))] if chance.random() < 0.2 else changed)


def with_right_checksums(png: bytes) -> bytes:
    """What a damaged PNG would be if its writer had been damaged: only so the pixel decoder ever sees it."""
    chunks, at = [png[:8]], 8
    while at + 8 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        body = png[at + 4 : at + 8 + length]
        chunks.append(png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return b"".join(chunks)


def peak_mib() -> int:
    """The most memory this process has had; 0 where there is no /proc. Not ru_maxrss: that begins with the parent's."""
    status = Path("/proc/self/status")
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) // 1024 if status.exists() else 0


def decode_mutants(num_mutants: int) -> dict[str, Any]:
    """How many of so many damaged images of each kind are decoded and refused, and by how many MiB memory grew."""
    found, before = {}, peak_mib()
    for kind, make in WHOLE.items():
        chance, whole = random.Random(kind), make()
        found[kind] = {"decoded": 0, "refused": 0}
        for number in range(num_mutants):
            sys.stderr.write(f"\r{kind} {number}   ")  # the last thing said before a crash
            try:
                damaged = mutant(whole, chance)
                # Half of the PNGs: the others are refused for their checksums, and nobody looks further.
                damaged = with_right_checksums(damaged) if "png" in kind and number % 2 else damaged
                image = decode(damaged, 12, 10_000)
            except ImageError:
                found[kind]["refused"] += 1
                continue
            if image.shape != (12, 12, 3) or image.dtype != np.uint8:
                raise AssertionError(f"{kind} {number}: {image.shape} {image.dtype}")
            found[kind]["decoded"] += 1
    return {"kinds": found, "grown_mib": peak_mib() - before}


if __name__ == "__main__":
    faulthandler.enable()
    print(json.dumps(decode_mutants(int(sys.argv[1]))))
