"""What a refused configuration says, and a page in a file."""

import re
from pathlib import Path

import pytest
from nstudent.config.file import load_config
from nstudent.errors import ConfigError


def refused(*overrides: str) -> str:
    """What is said of words that are no configuration."""
    with pytest.raises(ConfigError) as error:
        load_config(None, overrides)
    return str(error.value)


def problems(*overrides: str) -> list[str]:
    """The single problem stands in the first line, several below it."""
    first, *listed = refused(*overrides).removeprefix("the command line: ").splitlines()
    return [line.strip() for line in listed] or [first]


def key_of(problem: str) -> str:
    """The key that a problem begins with."""
    return re.split(r": | is ", problem)[0]


def page_of(folder: Path, text: str) -> Path:
    """A file with this text."""
    path = folder / "page.yaml"
    path.write_text(text, encoding="utf-8")
    return path
