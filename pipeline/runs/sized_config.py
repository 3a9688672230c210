"""The configuration of a run as a person gives it: a page and words, also where the size of the images is left open.

The command line and ``nstudent.load_config`` both read it here. What stands below reads pages with ``config.file``,
which needs no torch and knows numbers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nstudent.config.file import given_page
from nstudent.config.file import load_config as load_sized
from nstudent.config.schema import Config
from nstudent.machine import out_of_working_folder


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The defaults, with the recipe laid over them, with the page at ``path`` laid over that, with the words on top.

    Args:
        path: A YAML page; ``None`` for the embedded run.
        overrides: Words such as ``student.epochs=8``; the value of a key of text is taken as it
            stands, any other is read as YAML. ``data.image_size`` may be ``auto``.

    Raises:
        ConfigError: Lists every unknown key (with the nearest known one) and every wrong value, or says why no size
            follows from ``auto``.
    """
    return load_sized(path, sized(path, overrides))


def sized(path: str | Path | None, words: Sequence[str]) -> list[str]:
    """The words, with the size of the images as a number where page or words leave it to the limit of cost.

    Raises:
        ConfigError: The page or a word cannot be read, or no size fits.
    """
    data = given_page(path, words)[0].get("data")
    if not isinstance(data, dict) or data.get("image_size") != "auto":
        return list(words)
    # It imports torch, which other pages do without.
    with out_of_working_folder():
        from nstudent.runs.sizing import largest_image_size
    return [*words, f"data.image_size={largest_image_size(path, words)}"]
