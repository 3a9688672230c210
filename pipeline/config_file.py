"""From YAML pages and ``key=value`` words to a checked ``Config``, with every problem named at once."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from nstudent.config import Config
from nstudent.errors import ConfigError
from pydantic import BaseModel, ValidationError

_MAX_PAGE_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """Plain YAML without what makes a page dangerous or silent: aliases, and the last of two equal keys winning."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ConfigError(f"line {mark.line + 1}: YAML aliases (*name) are not allowed: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise ConfigError(f"line {key.start_mark.line + 1}: the key '{key.value}' stands twice: keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-3 as a string; a person means a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text; ``where`` names it in errors."""
    try:
        return yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"{where} is not readable YAML: {said}") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML page, at most a megabyte."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_PAGE_BYTES:
        raise ConfigError(f"{path} has {len(content):,} bytes: a page may have {_MAX_PAGE_BYTES:,}")
    try:
        return parse_yaml(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The defaults, with the page at ``path`` laid over them, with ``key=value`` words laid over that.

    Args:
        path: A YAML page; ``None`` for the embedded run.
        overrides: Words such as ``student.epochs=8``; the value is read as YAML.

    Raises:
        ConfigError: Lists every unknown key (with the nearest known one) and every wrong value.
    """
    page = {} if path is None else read_yaml(Path(path)) or {}
    if not isinstance(page, dict):
        raise ConfigError(f"{path} holds no keys: write 'key: value' lines")
    for word in overrides:
        _apply(page, word)
    return check(page, where=str(path) if path is not None else "the command line")


def check(page: dict[str, Any], where: str) -> Config:
    """Turn a nested mapping into a ``Config``; ``where`` names it in errors."""
    try:
        return Config.model_validate(page)
    except ValidationError as error:
        problems = "\n".join(f"  {line}" for line in _explain(error))
        raise ConfigError(f"{where}: {error.error_count()} problem(s) in the configuration:\n{problems}") from error


def _apply(page: dict[str, Any], word: str) -> None:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{word}' is not an override: write key=value, for instance student.epochs=8")
    *sections, leaf = key.split(".")
    here = page
    for section in sections:
        below = here.setdefault(section, {})
        if not isinstance(below, dict):
            raise ConfigError(f"'{word}': {section} is a value, it has no keys")
        here = below
    here[leaf] = parse_yaml(value, f"'{word}'")


def _explain(error: ValidationError) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        # Unions put the name of the branch they tried at the end of the location; a person wrote only the keys.
        location = [str(part) for part in problem["loc"] if not str(part).startswith(("tuple[", "function-"))]
        key = ".".join(location)
        if problem["type"] == "extra_forbidden":
            yield f"{key}: there is no such key{_nearest(location)}"
        elif problem["type"] == "value_error":
            yield str(problem["ctx"]["error"])
        else:
            yield f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]} (it is {problem['input']!r:.80})"


def _nearest(location: list[str]) -> str:
    section: Any = Config
    for part in location[:-1]:
        field = section.model_fields.get(part)
        section = field.annotation if field is not None else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return ""
    names = difflib.get_close_matches(location[-1], section.model_fields, n=1, cutoff=0.5)
    elsewhere = [f"{group}.{location[-1]}" for group in _sections() if location[-1] in _sections()[group]]
    near = names or elsewhere[:1]
    return f" (did you mean '{near[0]}'?)" if near else ""


def _sections() -> dict[str, Iterable[str]]:
    return {
        name: field.annotation.model_fields
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
