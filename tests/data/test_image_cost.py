"""What an image may cost: its scans and parts are counted, and no program is run for it; no clock decides."""

import io
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nstudent.data.decode import decode
from nstudent.data.image_cost import MAX_COMMENTS, MAX_PARTS, MAX_SCANS, check_scans
from nstudent.data.packing.jpeg_shards import EncodedShards, encode
from nstudent.data.packing.reader import Decoded
from nstudent.data.packing.shards import Layout
from nstudent.errors import ArtifactError, ImageError
from PIL import Image

SIDE = 64


def _saved(kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def with_scans(count: int, side: int = SIDE) -> bytes:
    """A legal progressive JPEG of so many scans, each of which refines one coefficient of one colour, by nothing."""
    blocks = (side // 8) ** 2
    first = _segment(0xDB, b"\0" + b"\1" * 64) + _segment(
        0xC2, struct.pack(">BHHB", 8, side, side, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    )
    first += b"".join(_segment(0xC4, kind + bytes([1] + [0] * 15) + b"\0") for kind in (b"\0", b"\x10"))
    first += b"".join(_segment(0xDA, bytes([1, c, 0, 0, 0, 0])) + bytes((blocks + 7) // 8) for c in (1, 2, 3))
    order = [(c, k, al) for al in range(13, -1, -1) for c in (1, 2, 3) for k in range(1, 64)]
    scans = [
        _segment(0xDA, bytes([1, c, 0, k, k, (0 if al == 13 else al + 1) << 4 | al])) + bytes((blocks + 7) // 8)
        for c, k, al in order[: count - 3]
    ]
    return b"\xff\xd8" + first + b"".join(scans) + b"\xff\xd9"


def test_as_many_scans_as_a_picture_may_have_are_decoded() -> None:
    assert decode(with_scans(MAX_SCANS), 8, 10_000).shape == (8, 8, 3)


@pytest.mark.parametrize("count", [MAX_SCANS + 1, 400, 2646])
def test_a_jpeg_with_more_scans_is_refused_before_it_is_decoded(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstudent.data.decode.simplejpeg.decode_jpeg", lambda *_, **__: pytest.fail("it is decoded"))
    with pytest.raises(ImageError, match=f"a JPEG of more than {MAX_SCANS} scans: save it again"):
        decode(with_scans(count), 8, 10_000)


@pytest.mark.parametrize("kind", ["MPO", "CMYK"])
def test_the_scans_of_a_jpeg_that_pillow_decodes_are_counted_too(kind: str) -> None:
    if kind == "MPO":
        # Several pictures in one file, which makes it another format to Pillow.
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
        at = buffer.getvalue().index(b"\xff\xe2")
        length = 2 + int.from_bytes(buffer.getvalue()[at + 2 : at + 4], "big")
        slow = with_scans(MAX_SCANS + 1)
        content = slow[:2] + buffer.getvalue()[at : at + length] + slow[2:]
    else:
        buffer = io.BytesIO()
        Image.new("CMYK", (SIDE, SIDE)).save(buffer, "JPEG")
        scan = _segment(0xDA, bytes([1, 1, 0, 1, 1, 0x10])) + bytes(8)
        content = buffer.getvalue()[:-2] + scan * (MAX_SCANS + 1) + b"\xff\xd9"
    with pytest.raises(ImageError, match="more than 100 scans"):
        decode(content, 8, 10_000)


def test_pictures_inside_of_a_picture_are_no_scans_of_it() -> None:
    """Thumbnails in its segments, and whatever stands behind its end."""
    inside = _segment(0xE5, b"\xff\xda" * 30_000)
    jpeg = _saved("JPEG", progressive=True)
    plain = decode(jpeg, 8, 10_000)
    for content in (jpeg[:2] + inside + jpeg[2:], jpeg + jpeg * 200, jpeg + b"\xff\xda" * 1000):
        assert (decode(content, 8, 10_000) == plain).all()


def test_scans_behind_fill_bytes_and_restarts_are_counted() -> None:
    jpeg = with_scans(4)
    scan = b"\xff\xff\xff\xff" + _segment(0xDA, bytes([1, 1, 0, 2, 2, 0x0D])) + b"\xff\xd0\0\xff\xd7\0\xff\0\1"
    check_scans(jpeg[:-2] + scan * (MAX_SCANS - 4) + b"\xff\xd9")
    with pytest.raises(ImageError, match="more than 100 scans"):
        check_scans(jpeg[:-2] + scan * (MAX_SCANS - 3) + b"\xff\xd9")


def test_the_scans_of_an_image_in_a_shard_are_counted(tmp_path: Path) -> None:
    """The shards of a stranger's pack hold JPEG, too."""
    path = tmp_path / "pixels-00000.h5"
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    layout = Layout(SIDE, 2, 0, "jpeg", 95)
    path.write_bytes(layout.encoded([Decoded(None, jpeg=encode(square, 95)), Decoded(None, jpeg=with_scans(400))]))
    assert EncodedShards([path])(np.array([0])).shape == (1, SIDE, SIDE, 3)
    with pytest.raises(ArtifactError, match=r"image 1 is damaged .*more than 100 scans"):
        EncodedShards([path])(np.array([1]))


def _chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _in_pieces(kind: str) -> bytes:
    """An image that is cut into millions of parts that say nothing, of a few bytes each."""
    content = _saved("GIF" if kind.startswith("gif") else "PNG" if kind.startswith("png") else "JPEG")
    if kind == "jpeg segments":
        return content[:2] + _segment(0xFE, b"") * 1_000_000 + content[2:]
    if kind == "jpeg fill bytes":
        return content[:2] + b"\xff" * 5_000_000 + content[2:]
    if kind == "png chunks":
        return content[:33] + _chunk(b"prVt") * 500_000 + content[33:]
    if kind == "png texts":
        return content[:33] + _chunk(b"tEXt", b"a\0b") * 500_000 + content[33:]
    if kind == "png chunks behind":
        return content[:-12] + _chunk(b"prVt") * (MAX_PARTS + 1) + content[-12:]
    begin = 13 + (3 * (2 << (content[10] & 7)) if content[10] & 128 else 0)
    if kind == "gif comment":
        return content[:begin] + b"\x21\xfe" + (b"\xff" + b"x" * 255) * 40_000 + b"\0" + content[begin:]
    return content[:begin] + b"\x21\xfe\1x\0" * 500_000 + content[begin:]


@pytest.mark.parametrize(
    "kind",
    [
        *("jpeg segments", "jpeg fill bytes", "png chunks", "png texts", "png chunks behind"),
        *("gif comment", "gif extensions"),
    ],
)
def test_an_image_cut_into_any_number_of_pieces_is_refused(kind: str) -> None:
    with pytest.raises(ImageError, match=r"more pieces than an image needs|more than 100,000"):
        decode(_in_pieces(kind), 8, 10_000)


def test_an_ordinary_number_of_pieces_is_read() -> None:
    jpeg = _saved("JPEG", icc_profile=b"x" * 60_000, comment=b"y" * 1000)
    jpeg = jpeg[:2] + _segment(0xE1, b"http://ns.adobe.com/xmp/extension/" + b"x" * 60_000) * 300 + jpeg[2:]
    png = _saved("PNG")
    for content in (jpeg, png[:33] + _chunk(b"tEXt", b"a\0b") * 1000 + png[33:]):
        assert decode(content, 8, 10_000).shape == (8, 8, 3)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[object]]:
    """The programs that are started meanwhile."""
    seen: list[object] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, command: object, *_: object, **__: object) -> None:
            seen.append(command)
            raise FileNotFoundError("gs")

    monkeypatch.setattr(subprocess, "Popen", Watched)
    return lambda: seen


def test_no_program_is_run_on_a_picture(started: Callable[[], list[object]]) -> None:
    """Pillow would hand PostScript to Ghostscript, whatever the file is called."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(x) print\n%%EOF\n"
    with pytest.raises(ImageError, match=r"not an image, or of an unknown kind|a kind of image that is not read"):
        decode(eps, 8, 10_000)
    assert started() == []


@pytest.mark.parametrize("kind", ["PCX", "TGA", "SGI", "ICO", "DDS", "MSP"])
def test_formats_whose_cost_nobody_has_looked_at_are_not_read(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("1" if kind == "MSP" else "RGB", (SIDE, SIDE)).save(buffer, kind)
    with pytest.raises(ImageError, match=r"not an image, or of an unknown kind|a kind of image that is not read"):
        decode(buffer.getvalue(), 8, 10_000)


def _png(side: int, inflated: int, data: int = 0) -> bytes:
    """A grey PNG whose data hold so many bytes: compressed, or without compression in ``data`` chunks."""
    packed = zlib.compress(bytes(inflated), 0 if data else 9)
    size = -(-len(packed) // max(1, data))
    chunks = [_chunk(b"IDAT", packed[at : at + size]) for at in range(0, len(packed), size)]
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IEND")


@pytest.mark.slow
def test_a_png_whose_data_hold_more_than_its_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand bytes to inflate for each one of the file."""
    monkeypatch.setattr("nstudent.data.image_cost._INFLATED_ALONE", 1000)
    monkeypatch.setattr("nstudent.data.decode.cv2.imdecode", lambda *_: pytest.fail("it is decoded"))
    for data in (0, 1, 7):
        with pytest.raises(ImageError, match="its compressed data hold more than its pixels"):
            decode(_png(64, 10_000_000, data), 8, 10_000)


def test_what_a_png_holds_is_counted_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inflated in pieces of a mebibyte, of which the first is less than the pixels."""
    monkeypatch.setattr("nstudent.data.image_cost._INFLATED_ALONE", 1000)
    assert decode(_png(1300, 1300 * 1301), 8, 2_000_000).shape == (8, 8, 3)
    with pytest.raises(ImageError, match="its compressed data hold more than its pixels"):
        decode(_png(1300, 1300 * 1301 + 10_000), 8, 2_000_000)


@pytest.mark.parametrize("data", [1, 7])
def test_a_png_of_exactly_its_pixels_is_read_however_large_it_is(data: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstudent.data.image_cost._INFLATED_ALONE", 1000)
    assert decode(_png(64, 64 * 65, data), 8, 10_000).shape == (8, 8, 3)


def test_a_large_png_that_holds_more_than_its_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="its compressed data hold more than its pixels"):
        decode(_png(64, 9 << 20, 1), 8, 10_000)


def test_an_interlaced_png_has_more_rows_than_it_is_high(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstudent.data.image_cost._INFLATED_ALONE", 0)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 900, 8, 2, 0, 0, 1))
    # Rows and columns of the seven passes of Adam7, of an image of 3 columns and 900 rows.
    passes = [(113, 1), (113, 0), (112, 1), (225, 1), (225, 2), (450, 1), (450, 3)]
    rows = b"".join(bytes(1 + 3 * columns) * height for height, columns in passes if columns)
    png = b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND")
    assert decode(png, 2, 10_000).shape == (2, 2, 3)


@pytest.mark.parametrize("kind", [b"P1", b"P2", b"P3"])
def test_a_ppm_of_numbers_in_text_has_few_comments(kind: bytes) -> None:
    def ppm(comments: int) -> bytes:
        return kind + b" 4 4" + (b" 255" if kind != b"P1" else b"") + b"\n" + b"#\n" * comments + b"1 " * 48

    assert decode(ppm(MAX_COMMENTS), 4, 100).shape == (4, 4, 3)
    with pytest.raises(ImageError, match="more than 1,000 comments"):
        decode(ppm(MAX_COMMENTS + 1), 4, 100)


def test_a_ppm_of_bytes_has_no_comments_to_count() -> None:
    assert (decode(b"P6 40 40 255\n" + b"#" * 4800, 4, 2000) == ord("#")).all()


def test_the_tiles_of_a_tiff_are_no_larger_than_an_image_may_be() -> None:
    """A decoder holds a whole tile, of which the image may be a corner."""

    def tiff(side: int) -> bytes:
        entries = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side)]
        tile = zlib.compress(bytes(side * side))
        start = 8 + 2 + 12 * (len(entries) + 2) + 4
        entries += [(324, start), (325, len(tile))]
        listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
        return b"II*\0" + struct.pack("<IH", 8, len(entries)) + listed + bytes(4) + tile

    assert decode(tiff(96), 8, 96 * 96).shape == (8, 8, 3)
    with pytest.raises(ImageError, match=r"its tiles of 112x112 pixels are more than data\.max_pixels \(9,216\)"):
        decode(tiff(112), 8, 96 * 96)


@pytest.mark.slow
def test_an_image_of_many_rows_may_be_read_row_by_row() -> None:
    """More reads than a header may take: 30,000 strips of one row."""
    rows = 30_000
    entries = [(256, 2), (257, rows), (258, 8), (259, 1), (262, 1), (277, 1), (278, 1)]
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    listed += struct.pack("<HHII", 273, 4, rows, start) + struct.pack("<HHII", 279, 4, rows, start + 4 * rows)
    offsets = struct.pack(f"<{rows}I", *(start + 8 * rows + 2 * row for row in range(rows)))
    sizes = struct.pack(f"<{rows}I", *[2] * rows)
    tiff = b"II*\0" + struct.pack("<IH", 8, len(entries) + 2) + listed + bytes(4) + offsets + sizes + b"\x80" * 2 * rows
    assert (decode(tiff, 2, 2 * rows) == 128).all()


@pytest.mark.slow
def test_the_segments_between_the_scans_of_a_jpeg_are_counted() -> None:
    """Those in front of its first scan Pillow reads, and those are counted as reads."""
    segment = _segment(0xFE, b"\xff\xda")
    jpeg = with_scans(4)
    check_scans(jpeg[:-2] + segment * (MAX_PARTS // 2) + jpeg[-2:])
    with pytest.raises(ImageError, match="more than 100,000 segments"):
        check_scans(jpeg[:-2] + segment * MAX_PARTS + jpeg[-2:])
