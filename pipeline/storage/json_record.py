"""Frozen dataclasses that are kept as JSON objects: one way to write them, and one strict way to read them back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record", bound="JsonRecord")

_KEY = "key"
"""Metadata of a field: its key in the JSON object, if that is not the name of the field."""


def json_key(key: str) -> Mapping[str, str]:
    """Metadata for a field whose key in the JSON object is not a Python name."""
    return {_KEY: key}


class JsonRecord:
    """A dataclass that is kept as a JSON object.

    Its fields are numbers, strings, booleans, other records, dictionaries with string keys, tuples of one type, or one
    of these or ``None``. A field with a default is left out of the object if it holds the default, so that records
    that were written before the field existed can still be read.
    """

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back."""
        found = {}
        for each in _fields_of(type(self)):
            value = getattr(self, each.name)
            if each.default is MISSING or value != each.default:
                found[_key_of(each)] = _plain(value)
        return found

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what ``to_json`` wrote; keys that are not known are skipped.

        Raises:
            ValueError: The object lacks a key, or a value is of another type; the message names the key.
        """
        return _record(cls, data, "")


def _record(kind: type[Record], data: Any, where: str) -> Record:
    if not isinstance(data, dict):
        raise ValueError(f"{where or 'it'} is not an object")
    hints = get_type_hints(kind)
    values = {}
    for each in _fields_of(kind):
        key = _key_of(each)
        inside = f"{where}.{key}" if where else key
        if key in data:
            values[each.name] = _value(hints[each.name], data[key], inside)
        elif each.default is MISSING:
            raise ValueError(f"{inside} is missing")
    return kind(**values)


def _value(hint: Any, data: Any, where: str) -> Any:
    """A JSON value as the type that ``hint`` names."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if data is None and NoneType in inner:
            return None
        (wanted,) = (each for each in inner if each is not NoneType)
        return _value(wanted, data, where)
    if origin is tuple and isinstance(data, list):
        return tuple(_value(inner[0], each, f"{where}[{number}]") for number, each in enumerate(data))
    if origin is dict and isinstance(data, dict):
        return {key: _value(inner[1], each, f"{where}.{key}") for key, each in data.items()}
    if isinstance(hint, type) and issubclass(hint, JsonRecord):
        return _record(hint, data, where)
    if _is_a(hint, data):
        return data
    raise ValueError(f"{where} is not {_NAMES.get(origin or hint, 'what it should be')}")


_NAMES = {tuple: "a list", dict: "an object", float: "a number", int: "a whole number", str: "text", bool: "a boolean"}


def _is_a(hint: Any, data: Any) -> bool:
    # bool is a subclass of int, and true is not a number.
    if hint is float:
        return isinstance(data, int | float) and not isinstance(data, bool) and math.isfinite(data)
    return type(data) is hint


def _plain(value: Any) -> Any:
    if isinstance(value, JsonRecord):
        return value.to_json()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _fields_of(kind: Any) -> tuple[Field[Any], ...]:
    return fields(kind)


def _key_of(each: Field[Any]) -> str:
    return str(each.metadata.get(_KEY, each.name))
