"""From YAML pages and ``key=value`` words to a checked ``Config``, with every problem named at once."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nstudent.config.as_typed import as_typed, field_at, fields_of, section_in, typed_value
from nstudent.config.recipe import lay_under
from nstudent.config.schema import Config
from nstudent.config.yaml_text import read_words
from nstudent.errors import ConfigError
from pydantic import BaseModel, ValidationError

_MAX_DEPTH = 8
_MAX_LISTED = 20
"""Problems that one error names."""

GONE: Mapping[str, str] = {
    "pseudolabel.calibrate": "every classifier is calibrated where it is trained",
    "filter.average_from": "predictions are averaged over the whole training",
    "student.promote_above": "the step choose decides, and a student that is not better ends nothing",
}
"""Keys that earlier versions had, and why there is no need for them."""


_Section = TypeVar("_Section", bound=BaseModel)


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The defaults, with the recipe laid over them, with the page at ``path`` laid over that, with the words on top.

    Args:
        path: A YAML page; ``None`` for the embedded run.
        overrides: Words such as ``student.epochs=8``; the value of a key of text is taken as it
            stands, any other is read as YAML.

    Raises:
        ConfigError: Lists every unknown key (with the nearest known one) and every wrong value.
    """
    page, where = given_page(path, overrides)
    lay_under(page)
    return check(page, where)


def given_page(path: str | Path | None, overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The keys that a page and words give, with values of the types that the schema wants, and what errors call it.

    Raises:
        ConfigError: The page cannot be read, or a word is none.
    """
    page = read_page(path)
    for word in overrides:
        add_word(page, word)
    where = str(path) if path is not None else "the command line"
    typed: dict[str, Any] = as_typed(page, Config, where)
    return typed, where


def read_page(path: str | Path | None) -> dict[str, Any]:
    """The keys that a page gives, with values as they were written; none of no page.

    Raises:
        ConfigError: It cannot be read, or holds no keys.
    """
    page = {} if path is None else read_words(Path(path)) or {}
    if not isinstance(page, dict):
        raise ConfigError(f"{path} holds no keys: write 'key: value' lines")
    return page


def reload_config(path: Path) -> Config:
    """The configuration that a run has kept. A key of an earlier version that is gone since is passed over.

    Raises:
        ConfigError: As ``load_config``.
    """
    page = read_words(path)
    for name in GONE:
        section, _, key = name.partition(".")
        if isinstance(page, dict) and isinstance(page.get(section), dict):
            page[section].pop(key, None)
    return check(as_typed(page or {}, Config, str(path)), str(path))


def check(page: dict[str, Any], where: str) -> Config:
    """Turn a nested mapping into a ``Config``; ``where`` names it in errors.

    Raises:
        ConfigError: Lists every unknown key and every wrong value.
    """
    return check_section(Config, page, where)


def check_section(kind: type[_Section], page: dict[str, Any], where: str) -> _Section:
    """Turn a nested mapping into a section of this kind; ``where`` names it in errors.

    Raises:
        ConfigError: Lists every unknown key and every wrong value.
    """
    try:
        return kind.model_validate(page)
    except ValidationError as error:
        problems = _problems(error, kind)
        if len(problems) == 1:
            raise ConfigError(f"{where}: {problems[0]}") from error
        listed = problems[:_MAX_LISTED]
        if len(problems) > _MAX_LISTED:
            listed.append(f"and {len(problems) - _MAX_LISTED:,} more")
        raise ConfigError(f"{where}: {len(problems)} problems in the configuration:", listed) from error


def add_word(page: dict[str, Any], word: str) -> None:
    """Lay a ``key=value`` word over a page.

    Raises:
        ConfigError: It is no such word, or its value cannot be read.
    """
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{word}' is not an override: write key=value, for instance student.epochs=8")
    *sections, leaf = key.split(".")
    if len(sections) > _MAX_DEPTH:
        raise ConfigError(f"'{word:.60}…' is not a key: no key has more than {_MAX_DEPTH + 1} parts")
    here = page
    for section in sections:
        below = here.setdefault(section, {})
        if not isinstance(below, dict):
            raise ConfigError(f"'{word}': {section} is a value, it has no keys")
        here = below
    here[leaf] = typed_value(value, field_at(Config, key), f"'{word}'")


def _problems(error: ValidationError, kind: type[BaseModel]) -> list[str]:
    """One line for each wrong key. A key that may have one of several types is one problem, not one for each type."""
    wrong: dict[tuple[str, str], list[str]] = {}
    lines: list[str] = []
    named: set[str] = set()
    for problem in error.errors(include_url=False):
        unknown = problem["type"] == "extra_forbidden"
        location = problem["loc"]
        path, section = _key(location[:-1] if unknown else location, kind)
        if problem["type"] == "value_error":
            said = str(problem["ctx"]["error"])
            if location and isinstance(location[-1], int):
                # Other errors name their keys; an entry of a list does not know where it stands.
                place = ".".join(path)
                said = f"{place}: {said}"
                named.add(place)
            lines.append(said)
        elif unknown:
            name = ".".join([*path, str(location[-1])])
            lines.append(f"{name}: {_why_unknown(name, section)}")
            named.add(name)
        else:
            said = problem["msg"].replace("valid tuple", "list").replace("valid dictionary", "group of keys")
            entry = (".".join(path), f"{problem['input']!r:.80}")
            wrong.setdefault(entry, []).append(f"{said[0].lower()}{said[1:]}")
            named.add(entry[0])
    for (key, shown), types in wrong.items():
        # A list whose entries are wrong is also too short for pydantic: that is no problem of its own.
        if not any(name.startswith(f"{key}.") for name in named):
            lines.append(f"{key} is {shown}: {' or '.join(dict.fromkeys(types))}")
    return lines


def _key(location: tuple[int | str, ...], kind: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None]:
    """The keys a person wrote, without the names of types that pydantic puts between them, and the last section."""
    section: type[BaseModel] | None = kind
    key: list[str] = []
    for part in location:
        if isinstance(part, int):
            key.append(str(part))
        elif section is not None and part in fields_of(section):
            key.append(part)
            section = section_in(fields_of(section)[part].annotation)
        elif section is None and not key:
            key.append(part)
    return key, section


def _why_unknown(name: str, section: type[BaseModel] | None) -> str:
    if name in GONE:
        return f"this key is gone, because {GONE[name]}: delete it"
    return f"there is no such key{_nearest(section, name.rpartition('.')[2])}"


def _nearest(section: type[BaseModel] | None, name: str) -> str:
    here = list(fields_of(section)) if section is not None else []
    elsewhere = [f"{group}.{name}" for group, fields in _sections().items() if name in fields]
    near = elsewhere[:1] or difflib.get_close_matches(name, here, n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _sections() -> dict[str, Iterable[str]]:
    return {
        name: field.annotation.model_fields
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
