"""What the source of a run looks like, and what it looked like when its data were made: whether it is the same.

Names and sizes are looked at, and times. Where only times differ, as in a copy, the bytes of those files decide, which
are read for that and not decoded; that they were found equal is written down.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nstudent.config.schema import DataConfig
from nstudent.data.sources import source_seen
from nstudent.data.sources.seen import Seen
from nstudent.data.sources.source import MAX_IMAGE_BYTES, open_file
from nstudent.errors import ArtifactError, ImageError
from nstudent.progress import Progress

SOURCE_SEEN = ".source.h5"
"""File in the run folder that keeps it; the run does without it if it is gone."""
_CONTENT, _STAMP = "content", "stamp"
_NONE = bytes(32)
"""Digest of what nobody has read."""
_HEAP = "unlabelled:"
"""Beginning of the names of images in a second folder."""


@dataclass(frozen=True)
class Kept:
    """What was written down of a source."""

    seen: Seen
    """What it looked like when its bytes were last known to be those that the data were made of."""
    stamp: str
    """The stamp under which the data were made."""
    digests: Mapping[str, bytes]
    """sha256 of the files that are no image of the data step, by their path."""


class SourceOfRun:
    """The source of a run, as it is now and as it was when the data in the run folder were made."""

    def __init__(self, config: DataConfig, run_dir: Path) -> None:
        self._config = config
        self._run_dir = run_dir
        self._compared: dict[str, bool] = {}

    @cached_property
    def now(self) -> Seen:
        """What it looks like; it is looked at once.

        Raises:
            DataError: Its files are not there.
        """
        return source_seen(self._config)

    def is_still(self, stamp: str, data: Path, progress: Progress) -> bool:
        """Whether it is what the data in the folder ``data`` were made of, under this stamp, with other times at most.

        Raises:
            StoppedError: ``progress``, which is told of the files that are read, asked to stop.
        """
        if stamp not in self._compared:
            self._compared[stamp] = self._is_still(stamp, data, progress)
        return self._compared[stamp]

    def keep(self, stamp: str, data: Path, *, anew: bool) -> None:
        """Write down what it looks like, unless that stands there.

        Args:
            stamp: The stamp under which the data were made.
            data: Folder of the data.
            anew: Whether they were just made.

        Raises:
            ArtifactError: The disk refuses it.
        """
        if not anew and not self._compared.get(stamp) and (self._run_dir / SOURCE_SEEN).exists():
            return
        kept = _kept(self._run_dir)
        if kept is not None and (kept.stamp, kept.seen) == (stamp, self.now):
            return
        same = kept is not None and kept.stamp == stamp
        digests = kept.digests if kept is not None and same else self._digests_of_others(data)
        write_seen(self._run_dir, Kept(self.now, stamp, digests))

    def changes(self) -> str:
        """How it differs from what was written down; empty if that cannot be said."""
        kept = _kept(self._run_dir)
        return "" if kept is None else self.now.difference(kept.seen)

    def _is_still(self, stamp: str, data: Path, progress: Progress) -> bool:
        kept = _kept(self._run_dir)
        touched = None if kept is None or kept.stamp != stamp else self.now.touched(kept.seen)
        if kept is None or touched is None:
            return False
        known = {**_digests_of_images(data), **kept.digests}
        wanted = set(touched)
        with progress.task("compare", len(touched), "files") as task:
            for name, path in self.now.paths():
                if name in wanted:
                    if known.get(name, _NONE) == _NONE or _sha256(path) != known[name]:
                        return False
                    task.advance(1)
        return True

    def _digests_of_others(self, data: Path) -> dict[str, bytes]:
        """sha256 of each file that is no image whose digest stands in the data."""
        images = _digests_of_images(data)
        others = ((name, path) for name, path in self.now.paths() if images.get(name, _NONE) == _NONE)
        found = {}
        for name, path in others:
            if name in images and self.now.files[name][0] > MAX_IMAGE_BYTES:
                continue  # too large for an image, and so it was not read for the data either
            digest = _sha256(path)
            # What has changed since it was looked at is not what the data were made of.
            with suppress(OSError):
                state = os.stat(path)
                if digest is not None and (state.st_size, state.st_mtime_ns) == self.now.files[name]:
                    found[name] = digest
        return found


def write_seen(run_dir: Path, kept: Kept) -> None:
    """Write down what a source looks like.

    Raises:
        ArtifactError: The disk refuses it.
    """
    # Slow to import, and only needed beside images.
    import numpy as np
    from nstudent.storage import hdf5

    files = kept.seen.files
    arrays = {
        "name": _as_array(files),
        "seen": np.array(list(files.values()), dtype=np.int64).reshape(len(files), 2),
        "read": _as_array(kept.digests),
        "digest": np.frombuffer(b"".join(kept.digests.values()), np.uint8).reshape(len(kept.digests), 32),
    }
    hdf5.write(run_dir / SOURCE_SEEN, arrays, {_CONTENT: kept.seen.content, _STAMP: kept.stamp})


def _as_array(names: Iterable[str]) -> Any:
    import numpy as np

    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    return np.array(encoded or [b""][:0], dtype=f"S{max([1, *map(len, encoded)])}")


def _kept(run_dir: Path) -> Kept | None:
    """What was written down; ``None`` if that cannot be read."""
    from nstudent.storage import hdf5

    path = run_dir / SOURCE_SEEN
    if path.is_symlink() or not path.is_file():
        return None
    with suppress(ArtifactError, KeyError, ValueError, TypeError, AttributeError):
        arrays, about = hdf5.mapped(path), hdf5.attributes(path)
        rows = zip(_names(arrays["name"]), arrays["seen"].tolist(), strict=True)
        seen = Seen(str(about[_CONTENT]), {name: (int(size), int(time)) for name, (size, time) in rows})
        digests = {}
        if "read" in arrays:
            digests = dict(zip(_names(arrays["read"]), (row.tobytes() for row in arrays["digest"]), strict=True))
        # Versions that did not write the stamp have made the data under that of what they saw.
        return Kept(seen, str(about.get(_STAMP, seen.stamp)), digests)
    return None


def _names(array: Any) -> list[str]:
    return [name.decode("utf-8", "surrogateescape") for name in array.tolist()]


def _digests_of_images(data: Path) -> dict[str, bytes]:
    """sha256 of each file that the data step has decoded, by its path in the source; zeros where it could not be read.

    The shards are not held against their hashes for that: a digest that has rotted fits nothing.
    """
    from nstudent.data.dataset import INDEX, PIXELS
    from nstudent.storage import hdf5

    with suppress(ArtifactError, KeyError, ValueError, TypeError, AttributeError):
        names = _names(hdf5.mapped(data / INDEX)["name"])
        shards = sorted(data.glob(f"{PIXELS}*.h5"))
        digests = [row.tobytes() for shard in shards for row in hdf5.mapped(shard)["digest"]]
        # A source names the images of its second folder otherwise than it names their files.
        files = (f"2:{name.removeprefix(_HEAP)}" if name.startswith(_HEAP) else name for name in names)
        return dict(zip(files, digests, strict=True))
    return {}


def _sha256(path: Path) -> bytes | None:
    """sha256 of a file; ``None`` if it cannot be read."""
    try:
        with open_file(path) as file:
            # Files of the system, to which a link may lead, have no size and give bytes for ever.
            if os.fstat(file.fileno()).st_size == 0:
                return hashlib.sha256().digest()
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, ImageError):
        return None
