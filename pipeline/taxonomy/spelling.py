"""The spelling of names: what a person reads as one name is one name, whichever file or program it comes from.

Classes, columns and folders of splits all pass through here, of every source and of a given taxonomy.
"""

import re
import unicodedata

_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe0e\ufe0f\ufeff]"
)
"""Characters that no reader sees: soft hyphens, marks of direction, variants of emoji, byte-order marks. Joiners stay
(U+200C, U+200D): emoji and several scripts are written with them."""
_DASHES = frozenset("‐‑‒–—―−－﹣")
"""What word processors and spreadsheets make of a single hyphen."""
_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "‘": "’"}


def spelled(name: str) -> str:
    """The one spelling of a name.

    Unicode form C; characters that cannot be seen are left out; each run of blanks (also no-break ones) is one space,
    and none stands at an end; a pair of quotes around the whole is dropped, and the ``=`` that spreadsheets put before
    it; a dash alone is ``-``.
    """
    if name.isascii() and name.isalnum():
        return name
    text = " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFC", name)).split())
    while len(text) > 1:
        # A formula by which spreadsheets are told that digits are text.
        if text.startswith('="') and text.endswith('"') and len(text) > 3:
            text = text[1:]
        elif _QUOTES.get(text[0]) == text[-1]:
            text = text[1:-1].strip()
        else:
            break
    return "-" if text in _DASHES else text


def alike(name: str) -> str:
    """The same text for two names that differ in case alone, in the width of letters, or in what ``spelled`` makes one.

    Keyboards of several languages have letters and digits of two widths (Ａ１, A1): Unicode form KC has one.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", spelled(name)).casefold())
