"""What a file is by its first bytes: an image that ``data.decode`` reads, one that it does not, or something else.

Light to import: nothing is decoded here.
"""

import re
from importlib.util import find_spec

HEAD_BYTES = 132
"""Number of bytes at the start of a file by which its kind is known."""
IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
        *(".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
"""A file of such a name is an image, or a damaged one: which of the two shows when it is decoded."""
HEIC = "HEIC"
INSTALL_HEIC = "pip install 'nstudent[heic]'"

_DECODED = frozenset({"JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG 2000", "PPM"})
_RAW_SUFFIXES = frozenset({".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".pef", ".raf", ".srw"})
_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".tmp", ".bak", "~")

_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    # Two letters alone would make an image of many a text: the length of the header that follows is one of a few.
    ("BMP", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("WEBP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51")),
    ("PPM", re.compile(rb"P[1-6fF]\s+(#|[0-9])")),
    # The file type box of ISO media names a brand, and others that fit, each of four letters.
    ("AVIF", re.compile(rb".{4}ftyp.{0,40}avi[fs]", re.DOTALL)),
    (HEIC, re.compile(rb".{4}ftyp(....){0,10}?(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("PSD", re.compile(rb"8BPS")),
    ("PDF", re.compile(rb"%PDF-")),
    ("ICO", re.compile(rb"\0\0[\1\2]\0[^\0]\0")),
    ("DICOM", re.compile(rb".{128}DICM", re.DOTALL)),
    ("SVG", re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!DOCTYPE svg|<svg)", re.IGNORECASE)),
)


def kind_of(head: bytes) -> str | None:
    """Name of the kind of image that a file is, by its first ``HEAD_BYTES`` bytes; ``None``: it is none we know."""
    return next((name for name, signature in _SIGNATURES if signature.match(head)), None)


def is_decoded(kind: str) -> bool:
    """Whether images of a kind are read here."""
    return kind in _DECODED or (kind == HEIC and heic_is_read())


def heic_is_read() -> bool:
    """Whether the extra that decodes HEIC is installed."""
    return find_spec("pi_heif") is not None


def suffix_of(name: str) -> str:
    """The suffix of a file's name in lower case, with its dot; empty if it has none."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def why_not_by_name(name: str) -> str | None:
    """Why a file is not taken whatever it holds; ``None``: its content decides."""
    if suffix_of(name) in _RAW_SUFFIXES:
        return "raw files of cameras (export them as JPEG or TIFF)"
    if name.lower().endswith(_UNFINISHED):
        return "unfinished downloads or backup copies"
    return None


def why_not(name: str, head: bytes) -> str | None:
    """Why a file is not taken, as a group of files; ``None``: it is an image that is read.

    Args:
        name: Name of the file.
        head: Its first ``HEAD_BYTES`` bytes.
    """
    kind = kind_of(head)
    if kind is None:
        return f"not an image ({suffix_of(name)[:12] or 'no suffix'})"
    if is_decoded(kind):
        return None
    if kind == HEIC:
        return f"HEIC images ({INSTALL_HEIC}, or convert them to JPEG)"
    return f"{kind} files (convert them to PNG or JPEG)"
