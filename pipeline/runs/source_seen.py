"""What the source of a run looks like, and what it looked like when its data were made: in words, what has changed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from nstudent.data.sources.seen import Seen
from nstudent.errors import ArtifactError

SOURCE_SEEN = ".source.h5"
"""File in the run folder that keeps it; the run does without it if it is gone."""
_CONTENT = "content"


def keep_seen(run_dir: Path, seen: Seen) -> None:
    """Write down what the source looks like.

    Raises:
        ArtifactError: The disk refuses it.
    """
    # Slow to import, and only needed beside images.
    import numpy as np
    from nstudent.storage import hdf5

    names = [name.encode("utf-8", "surrogateescape") for name in seen.files]
    arrays = {
        "name": np.array(names or [b""][:0], dtype=f"S{max([1, *map(len, names)])}"),
        "seen": np.array(list(seen.files.values()), dtype=np.int64).reshape(len(names), 2),
    }
    hdf5.write(run_dir / SOURCE_SEEN, arrays, {_CONTENT: seen.content})


def changes(run_dir: Path, seen: Seen) -> str:
    """How the source differs from what was written down; empty if that cannot be said."""
    from nstudent.storage import hdf5

    path = run_dir / SOURCE_SEEN
    if path.is_symlink() or not path.is_file():
        return ""
    with suppress(ArtifactError, KeyError, ValueError, TypeError):
        arrays, content = hdf5.mapped(path), hdf5.attributes(path)[_CONTENT]
        names = (name.decode("utf-8", "surrogateescape") for name in arrays["name"].tolist())
        rows = zip(names, arrays["seen"].tolist(), strict=True)
        files = {name: (int(size), int(time)) for name, (size, time) in rows}
        return seen.difference(Seen(str(content), files))
    return ""
