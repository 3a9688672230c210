"""Every key of the configuration in words: what it takes, what it is by default, what it means, when to change it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from nstudent.config.advice import WHEN
from nstudent.config.as_typed import fields_of, section_in
from nstudent.config.file import GONE
from nstudent.config.members import MEMBERS, Kinds, MemberConfig
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
    kind: str = ""
    """The kind of member that this holds for; empty outside of lists of members."""


def explained(key: str) -> tuple[Explained, ...]:
    """A key in words; an empty key stands for the whole configuration.

    Args:
        key: Such as ``student.noise.flip``, or ``teacher.members.0.backbones``.

    Returns:
        One entry. For a key of members, one for each kind of member that has the key; for a list of members, the list
        and then each kind with its keys.

    Raises:
        ConfigError: There is no such key; the nearest one is named.
    """
    parts = [part for part in key.split(".") if part and not part.isdecimal()]
    found = [_Place(Config, Config())]
    for part in parts:
        found = [inside for place in found for inside in place.at(part)]
    if not found:
        raise ConfigError(f"{key}: {_unknown(key)}")
    name = ".".join(parts)
    return tuple(entry for place in found for entry in place.in_words(name))


@dataclass(frozen=True)
class _Place:
    """Where a key stands in the schema."""

    section: type[BaseModel] | None
    """The section that the key is the name of, by itself or as a list; ``None`` for a key with a plain value."""
    standing: Any
    """What the key is by default."""
    field: FieldInfo | None = None
    """``None`` for the whole configuration."""
    kind: str = ""
    """Kind of the member that the key belongs to; empty outside of lists of members."""
    holder: type[BaseModel] | None = None
    """The section that the key is a part of."""

    def at(self, part: str) -> Iterator[_Place]:
        """The places of a key of the section: one, or one for each kind of member that has the key."""
        for kind, section in self._sections():
            field = fields_of(section).get(part)
            if field is not None:
                own = isinstance(self.standing, Section)
                standing = getattr(self.standing, part, field.default) if own else field.default
                yield _Place(section_in(field.annotation), standing, field, kind or self.kind, section)

    def in_words(self, name: str) -> Iterator[Explained]:
        """The key of this name; a list of members is followed by its kinds."""
        if self.field is None:
            yield Explained("", "A whole run", "", None, "", self._below(name, Config))
            return
        meaning = " ".join((self.field.description or (self.section.__doc__ if self.section else "") or "").split())
        if self.section is not None and isinstance(self.standing, Section):
            yield Explained(name, meaning, "", None, self._when(name), self._below(name, self.section), self.kind)
            return
        default = TypeAdapter(Any).dump_python(self.standing, mode="json")
        yield Explained(name, meaning, _takes(self.field), default, self._when(name), (), self.kind)
        for kind, section in self._sections():
            about = " ".join((section.__doc__ or "").split())
            yield Explained(name, about, "", None, "", self._below(name, section), kind)

    def _sections(self) -> Iterator[tuple[str, type[BaseModel]]]:
        """The sections that may stand here: one, or one for each kind of member with the name of the kind."""
        if self.section is MemberConfig and self.field is not None:
            yield from ((kind, MEMBERS[kind]) for kind in _kinds_in(self.field.annotation))
        elif self.section is not None:
            yield "", self.section

    def _below(self, name: str, section: type[BaseModel]) -> tuple[str, ...]:
        return tuple(f"{name}.{each}" if name else each for each in fields_of(section))

    def _when(self, name: str) -> str:
        """When to change the key; that a key belongs to a kind of member counts, also outside of lists of members."""
        *above, leaf = name.split(".")
        kinds = [kind for kind, section in MEMBERS.items() if section is self.holder]
        parts = [*above, *kinds, leaf]
        ends = (".".join(parts[number:]) for number in range(len(parts)))
        return next((WHEN[end] for end in ends if end in WHEN), "")


def all_keys(section: type[BaseModel] = Config, start: str = "") -> Iterator[str]:
    """Every key that has a value, in the order of the schema; keys of the entries of a list without their number."""
    for name, field in fields_of(section).items():
        below = section_in(field.annotation)
        if below is None or field.is_required() or not isinstance(field.default, Section):
            yield f"{start}{name}"
        if below is MemberConfig:
            inside = [all_keys(MEMBERS[kind], f"{start}{name}.") for kind in _kinds_in(field.annotation)]
            yield from dict.fromkeys(key for keys in inside for key in keys)
        elif below is not None:
            yield from all_keys(below, f"{start}{name}.")


def _kinds_in(annotation: Any) -> tuple[str, ...]:
    """The kinds of members that a list takes: by the last mark of its annotation, which narrows those before it."""
    marks = [mark.names for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Kinds)]
    return marks[-1] if marks else next((found for part in get_args(annotation) if (found := _kinds_in(part))), ())


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


def _takes(field: FieldInfo) -> str:
    """The values that a key takes, in words."""
    if section_in(field.annotation) is not None:
        groups = "a list of groups of keys" if _is_list(field.annotation) else "a group of keys"
        return groups + ("" if not _may_be_null(field) else ", or null")
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return _in_words(TypeAdapter(kind).json_schema())


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(map(_is_list, get_args(annotation)))


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
