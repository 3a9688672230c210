"""Where each value of a configuration comes from, and the whole of it as a page that says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstudent.config.file import add_word, check, given_page, read_page
from nstudent.config.members import NETWORK, MemberConfig, kind_of
from nstudent.config.recipe import lay_under
from nstudent.config.types import Section
from nstudent.config.yaml_text import dump_flow
from nstudent.errors import one_line

DEFAULT = "default"
COMMAND_LINE = "command line"
_COMMENT_COLUMN = 44
"""Column of a line at which the origin of its value stands, where there is room."""


@dataclass(frozen=True)
class Line:
    """One key of a configuration."""

    key: str
    """The whole key, such as ``student.noise.flip``; an entry of a list is named by its number."""
    value: Any
    """Its value, as JSON."""
    origin: str
    """``default``, the name of a rule of the recipe, ``command line``, or the name of the page."""


def resolved(path: Path | None, words: Sequence[str]) -> list[Line]:
    """Every key of a configuration, in the order of the schema.

    Args:
        path: The page; ``None``: there is none.
        words: Words such as ``student.epochs=8``.

    Raises:
        ConfigError: As ``load_config``.
    """
    page, where = given_page(path, words)
    by_rule = {key: rule.name for rule in lay_under(page) for key in _leaves(rule.value, rule.key)}
    return list(_lines(check(page, where), "", _given(path, words) | by_rule))


def as_page(lines: Sequence[Line], *, changed: bool = False) -> str:
    """YAML text that can be used as a page, with the origin of every value behind it.

    Args:
        lines: What ``resolved`` gives.
        changed: Leave out what is as it is by default.
    """
    kept = [line for line in lines if not (changed and line.origin == DEFAULT)]
    shown, open_groups = [], set[str]()
    items = {line.key.rpartition(".")[0] for line in kept if line.key.rpartition(".")[0].rpartition(".")[2].isdigit()}
    for line in kept:
        *above, name = line.key.split(".")
        indent, dash = "", ""
        for depth in range(1, len(above) + 1):
            group = ".".join(above[:depth])
            if group in items:
                dash = "" if group in open_groups else "- "
                open_groups.add(group)
                indent += "  "
                continue
            if group not in open_groups:
                shown.append(f"{indent}{dash}{above[depth - 1]}:")
                open_groups.add(group)
                dash = ""
            indent += "  "
        start = f"{indent[:-2]}{dash}" if dash else indent
        shown.append(f"{f'{start}{name}: {dump_flow(line.value)}':<{_COMMENT_COLUMN}}  # {line.origin}")
    return "\n".join(shown) + "\n" if shown else ""


def _given(path: Path | None, words: Sequence[str]) -> dict[str, str]:
    """Origin by key of every value that is given."""
    page = read_page(path)
    found = dict.fromkeys(_leaves(page), one_line(str(path)))
    for word in words:
        alone: dict[str, Any] = {}
        add_word(alone, word)
        key = word.partition("=")[0]
        # A group that is given as a word takes the place of the whole group of the page.
        found = {name: origin for name, origin in found.items() if name != key and not name.startswith(f"{key}.")}
        found |= dict.fromkeys(_leaves(alone), COMMAND_LINE)
    return found


def _leaves(value: Any, key: str = "") -> Iterator[str]:
    """Keys of all values below a group, or below the groups of a list."""
    if isinstance(value, Mapping):
        entries = [(str(name), each) for name, each in value.items()]
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        entries = [(str(number), each) for number, each in enumerate(value)]
    else:
        yield key
        return
    for name, each in entries:
        yield from _leaves(each, f"{key}.{name}" if key else name)


def _lines(section: Section, start: str, given: Mapping[str, str]) -> Iterator[Line]:
    dumped = section.model_dump(mode="json")
    if isinstance(section, MemberConfig) and kind_of(section) != NETWORK:
        yield Line(f"{start}kind", kind_of(section), _origin(f"{start}kind", given))
    for name in type(section).model_fields:
        value, key = getattr(section, name), f"{start}{name}"
        if isinstance(value, Section):
            yield from _lines(value, f"{key}.", given)
        elif isinstance(value, tuple) and value and all(isinstance(each, Section) for each in value):
            for number, each in enumerate(value):
                yield from _lines(each, f"{key}.{number}.", given)
        else:
            yield Line(key, dumped[name], _origin(key, given))


def _origin(key: str, given: Mapping[str, str]) -> str:
    below = (origin for name, origin in given.items() if name == key or name.startswith(f"{key}."))
    return next(below, DEFAULT)
