"""Words as a person typed them, and what the schema makes of each: text for a key of text, else what YAML says."""

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from nstudent.config.members import MEMBERS, MemberConfig
from nstudent.config.yaml_text import Word, as_names, parse_words, valued
from nstudent.errors import ConfigError
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'", re.DOTALL)
_COMMENT = re.compile(r"(^|\s)#")


def as_typed(page: Any, section: type[BaseModel] | None, where: str) -> Any:
    """A page of unquoted words, each as the key wants it that it stands for; keys that are not known want nothing.

    Args:
        page: What ``parse_words`` gives.
        section: The section that the page describes.
        where: Names the page in errors.

    Raises:
        ConfigError: A number is written in a notation that a person would not take for one.
    """
    if not isinstance(page, dict) or section is None:
        return valued(page, where)
    fields = fields_of(section)
    return {key: _of_key(value, fields.get(key), f"{where}: {key}") for key, value in page.items()}


def typed_value(text: str, field: FieldInfo | None, where: str) -> Any:
    """The value of a ``key=value`` word; what ``as_typed`` takes as well.

    A key of text takes the text as it stands, less quotes around the whole; nothing at all is null. Everything else is
    YAML, in which a comment is an error.

    Raises:
        ConfigError: It is not YAML.
    """
    leaves = set(_leaves(field.annotation)) if field is not None else set()
    is_tree = dict in leaves and text.lstrip()[:1] in ("{", "[")
    if _wants_text(leaves) and not is_tree and tuple not in leaves:
        if _QUOTED.fullmatch(text):
            return parse_words(text, where)
        if not text and type(None) in leaves:
            return None
        is_switch = bool in leaves and text.lower() in ("true", "false")
        return text.lower() == "true" if is_switch else text
    if _COMMENT.search(_QUOTED.sub("''", text)):
        raise ConfigError(f"{where}: behind # YAML reads a comment: put the text that holds it in quotes")
    return parse_words(text, where)


def field_at(section: type[BaseModel], key: str) -> FieldInfo | None:
    """The field of a key, such as ``student.model.backbones``; ``None`` if there is no such key."""
    here: type[BaseModel] | None = section
    field: FieldInfo | None = None
    for part in key.split("."):
        field = fields_of(here).get(part) if here is not None else None
        here = section_in(field.annotation) if field is not None else None
    return field


def fields_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a section by their keys; of a member that may be of any kind, those of all kinds."""
    kinds = MEMBERS.values() if section is MemberConfig else (section,)
    return {key: field for kind in kinds for key, field in kind.model_fields.items()}


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, by itself or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (section_in(part) for part in get_args(annotation))
    return next((section for section in inner if section is not None), None)


def _of_key(value: Any, field: FieldInfo | None, where: str) -> Any:
    if field is None:
        return valued(value, where)
    section, leaves = section_in(field.annotation), set(_leaves(field.annotation))
    if section is not None:
        return (
            [as_typed(each, section, where) for each in value]
            if isinstance(value, list)
            else as_typed(value, section, where)
        )
    if not _wants_text(leaves):
        return valued(value, where)
    if isinstance(value, dict):
        return as_names(value)
    if isinstance(value, list):
        return as_names(value) if tuple in leaves or dict in leaves else valued(value, where)
    if not isinstance(value, Word):
        return value
    made = value.value if value.kind in ("bool", "null") else value.letters
    return made if type(made) in leaves else value.letters


def _wants_text(leaves: set[Any]) -> bool:
    """Whether a key takes text, and no numbers beside it: then 007 and 1e3 are text."""
    return str in leaves and not leaves & {int, float}


def _leaves(annotation: Any) -> Iterator[Any]:
    """The kinds of values that a key takes, such as ``str`` and ``NoneType``, lists and groups of them included."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield from (type(each) for each in inner)
    elif origin in (dict, tuple):
        yield origin
        # The values of a tree are trees again.
        yield from ([str] if origin is dict and object in inner else [leaf for part in inner for leaf in _leaves(part)])
    elif inner:
        yield from (leaf for part in inner for leaf in _leaves(part))
    elif isinstance(annotation, type):
        yield annotation
