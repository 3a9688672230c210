"""Every key of the configuration in words: what it takes, what it is by default, what it means, when to change it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from nstudent.config.advice import WHEN
from nstudent.config.as_typed import fields_of, section_in
from nstudent.config.file import GONE
from nstudent.config.schema import Config
from nstudent.config.types import Section
from nstudent.errors import ConfigError
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Explained:
    """A key, or a group of keys, in words."""

    key: str
    """The whole key; entries of a list have no number in it."""
    meaning: str
    takes: str
    """The values that it takes; empty for a group."""
    default: Any
    """The value where none is given, as JSON; ``None`` for a group, too."""
    when: str
    """When to change it; empty where nothing is to be said."""
    below: tuple[str, ...] = ()
    """The keys of a group."""


def explained(key: str) -> Explained:
    """One key in words; an empty key stands for the whole configuration.

    Args:
        key: Such as ``student.noise.flip``, or ``teacher.members.0.backbones``.

    Raises:
        ConfigError: There is no such key; the nearest one is named.
    """
    parts = [part for part in key.split(".") if part and not part.isdecimal()]
    section: type[BaseModel] | None = Config
    standing: Any = Config()
    field: FieldInfo | None = None
    for part in parts:
        field = fields_of(section).get(part) if section is not None else None
        if field is None:
            raise ConfigError(f"{key}: {_unknown(key)}")
        standing = getattr(standing, part, field.default) if isinstance(standing, Section) else field.default
        section = section_in(field.annotation)
    name = ".".join(parts)
    below = tuple(f"{name}.{each}" if name else each for each in fields_of(section)) if section is not None else ()
    if field is None:
        return Explained("", "A whole run", "", None, "", below)
    meaning = field.description or (section.__doc__ if section is not None else "") or ""
    if section is not None and isinstance(standing, Section):
        return Explained(name, " ".join(meaning.split()), "", None, _when(parts), below)
    default = TypeAdapter(Any).dump_python(standing, mode="json")
    return Explained(name, " ".join(meaning.split()), _takes(field), default, _when(parts), below)


def all_keys(section: type[BaseModel] = Config, start: str = "") -> Iterator[str]:
    """Every key that has a value, in the order of the schema; keys of the entries of a list without their number."""
    for name, field in fields_of(section).items():
        below = section_in(field.annotation)
        if below is None or field.is_required() or not isinstance(field.default, Section):
            yield f"{start}{name}"
        if below is not None:
            yield from all_keys(below, f"{start}{name}.")


def _unknown(key: str) -> str:
    if key in GONE:
        return f"this key is gone, because {GONE[key]}"
    known = list(all_keys())
    leaf = key.rpartition(".")[2]
    same = [each for each in known if each.rpartition(".")[2] == leaf]
    groups = list(dict.fromkeys(each.rpartition(".")[0] for each in known if "." in each))
    near = same or difflib.get_close_matches(key, known + groups, n=1, cutoff=0.6)
    return "there is no such key" + (
        f" (did you mean '{near[0]}'?)" if near else ": nstudent config explain lists them"
    )


def _when(parts: list[str]) -> str:
    ends = (".".join(parts[number:]) for number in range(len(parts)))
    return next((WHEN[end] for end in ends if end in WHEN), "")


def _takes(field: FieldInfo) -> str:
    """The values that a key takes, in words."""
    if section_in(field.annotation) is not None:
        return "a list of groups of keys" + ("" if not _may_be_null(field) else ", or null")
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return _in_words(TypeAdapter(kind).json_schema())


def _may_be_null(field: FieldInfo) -> bool:
    return type(None) in getattr(field.annotation, "__args__", ())


def _in_words(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return ", or ".join(_in_words(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return f"{'a whole number' if kind == 'integer' else 'a number'}{_bounds(schema)}"
    if kind == "array":
        entry = _in_words(schema.get("items", {}))
        return f"a list of {entry.replace('a whole number', 'whole numbers').replace('a number', 'numbers')}"
    words = {"boolean": "true or false", "string": "text", "null": "null", "object": "a group of keys"}
    return words.get(str(kind), "any value")


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if high < 1e6 else f" from {low:,} to {high:,}"
    said = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "of at most", "exclusiveMaximum": "below"}
    parts = [f"{words} {schema[name]:g}" for name, words in said.items() if name in schema]
    return f" {' and '.join(parts)}" if parts else ""
