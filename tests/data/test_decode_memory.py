"""Images that are small on disk and large in memory. Linux only: the peak of memory is read from /proc."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, png_chunk

MAX_PIXELS = 64_000_000


def measured(tmp_path: Path, content: bytes, size_px: int) -> tuple[str, int]:
    """(outcome, MiB by which the peak of memory grew) of decoding in a process of its own."""
    path = tmp_path / "image"
    path.write_bytes(content)
    script = f"""
import re
from nstudent.data.decode import decode
from nstudent.errors import ImageError
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
content, before = open({str(path)!r}, "rb").read(), peak()
try:
    decode(content, {size_px}, {MAX_PIXELS})
    outcome = "decoded"
except ImageError:
    outcome = "refused"
print(outcome, peak() - before)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    outcome, grown_mib = found.stdout.split()
    return outcome, int(grown_mib)


needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")


@needs_proc
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    side = 30_000  # 900 million pixels of one bit
    rows = zlib.compressobj(1)
    row = b"\0" + b"\0" * (side // 8)
    body = b"".join(rows.compress(row * 100) for _ in range(side // 100)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        [png_chunk(b"IHDR", header), png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    )
    assert len(bomb) < 1_000_000

    outcome, grown_mib = measured(tmp_path, bomb, 32)

    assert outcome == "refused"
    assert grown_mib < 20


@needs_proc
def test_a_long_thin_image_does_not_blow_up(tmp_path: Path) -> None:
    """2 x 20,000 pixels, enlarged before the centre is cut out, would be 64 x 640,000."""
    outcome, grown_mib = measured(tmp_path, encoded(np.zeros((2, 20_000, 3), np.uint8), "PNG"), 64)

    assert outcome == "decoded"
    assert grown_mib < 40
