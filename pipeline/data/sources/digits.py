"""scikit-learn's 1,797 handwritten digits, 8x8 pixels: the embedded data set.

The tree is by shape. Two digits end early, so that absent levels are part of every run: 1 is a bare stroke (no mid or
fine class), 8 is the only digit with two loops (no fine class).
"""

from importlib import metadata

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import DataConfig
from nstudent.data.sources.seen import Seen
from nstudent.data.sources.source import Catalogue, Record

PATHS = {
    0: ("loop", "one loop", "zero"),
    1: ("stroke", "-", "-"),
    2: ("open", "curved", "two"),
    3: ("open", "curved", "three"),
    4: ("open", "angular", "four"),
    5: ("open", "curved", "five"),
    6: ("loop", "one loop", "six"),
    7: ("open", "angular", "seven"),
    8: ("loop", "two loops", "-"),
    9: ("loop", "one loop", "nine"),
}


class Digits:
    """The digits with their three-level labels."""

    encoded = False

    def __init__(self, levels: tuple[str, ...]) -> None:
        self._levels = levels
        self._images: npt.NDArray[np.uint8] | None = None

    def seen(self) -> Seen:
        """The data came with the installed scikit-learn."""
        return Seen(f"scikit-learn {metadata.version('scikit-learn')}")

    def catalogue(self) -> Catalogue:
        """All digits, without splits."""
        from sklearn.datasets import load_digits  # seconds to import, and only needed when the data is packed

        digits = load_digits()
        # 0..16 in steps of 1; 15.9375 maps 16 to 255.
        self._images = np.rint(digits.images * 15.9375).astype(np.uint8)
        records = [Record(f"digit-{i:04d}", PATHS[int(t)]) for i, t in enumerate(digits.target)]
        return Catalogue(records, self._levels)

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        """Pixels, (8, 8)."""
        assert self._images is not None, "catalogue() comes first"
        image: npt.NDArray[np.uint8] = self._images[index]
        return image


def open_source(config: DataConfig) -> Digits:
    """The embedded data set has names of levels for its only option."""
    return Digits(config.known_levels or ())
