"""From YAML pages and ``key=value`` words to a checked ``Config``, with every problem named at once."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from nstudent.config.members import MEMBERS, MemberConfig
from nstudent.config.schema import Config
from nstudent.errors import ConfigError, summary
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

_MAX_PAGE_BYTES = 1_000_000
_MAX_DEPTH = 8
_MAX_VALUES = 50_000
"""Number of values that one page may hold; PyYAML takes a second for so many."""
_MAX_DIGITS = 100
_MAX_LISTED = 20
"""Problems that one error names."""

GONE: Mapping[str, str] = {
    "pseudolabel.calibrate": "every classifier is calibrated where it is trained",
    "filter.average_from": "predictions are averaged over the whole training",
    "student.promote_above": "the step choose decides, and a student that is not better ends nothing",
}
"""Keys that earlier versions had, and why there is no need for them."""


_Section = TypeVar("_Section", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Plain YAML without what makes a page dangerous or silent: aliases, and the last of two equal keys winning."""

    num_values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.num_values += 1
        if self.num_values > _MAX_VALUES:
            raise ConfigError(f"more than {_MAX_VALUES:,} keys and values: a page may have no more")
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ConfigError(f"line {mark.line + 1}: YAML aliases (*name) are not allowed: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            where = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{where}: a key is a word, not a list or a group")
            if key.value in seen:
                raise ConfigError(f"{where}: the key '{key.value}' stands twice: keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    # With colons (12:30 is 750) a short page spells numbers that take minutes, and that nothing can print.
    if len(node.value) > _MAX_DIGITS:
        raise ConfigError(f"line {node.start_mark.line + 1}: a number of {len(node.value):,} characters")
    of_kind = loader.construct_yaml_int if node.tag.endswith(":int") else loader.construct_yaml_float
    return of_kind(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number)


class _Dumper(yaml.SafeDumper):
    """Writes what ``_Loader`` reads back as it was."""


# YAML 1.1 reads 1e-3 as a string; a person means a number.
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def dump_yaml(value: Any) -> str:
    """YAML text that ``parse_yaml`` reads back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text; ``where`` names it in errors.

    Raises:
        ConfigError: The text is not YAML, or it holds a tag, an alias or a key that stands twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # A tag on a value that it does not fit (!!int '') makes PyYAML itself stumble.
        said = summary(error, 300)
        raise ConfigError(f"{where} is not readable YAML: {said}") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML page, at most a megabyte.

    Raises:
        ConfigError: The file cannot be read, is too large, or is not UTF-8 text or YAML.
    """
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


def reload_config(path: Path) -> Config:
    """The configuration that a run has kept. A key of an earlier version that is gone since is passed over.

    Raises:
        ConfigError: As ``load_config``.
    """
    page = read_yaml(path)
    for name in GONE:
        section, _, key = name.partition(".")
        if isinstance(page, dict) and isinstance(page.get(section), dict):
            page[section].pop(key, None)
    return check(page or {}, where=str(path))


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


def _apply(page: dict[str, Any], word: str) -> None:
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
    here[leaf] = parse_yaml(value, f"'{word}'")


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
        elif section is not None and part in _fields(section):
            key.append(part)
            section = _section_in(_fields(section)[part].annotation)
        elif section is None and not key:
            key.append(part)
    return key, section


def _fields(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a section by their keys; of a member that may be of any kind, those of all kinds."""
    kinds = MEMBERS.values() if section is MemberConfig else (section,)
    return {key: field for kind in kinds for key, field in kind.model_fields.items()}


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, by itself or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_in(part) for part in get_args(annotation))
    return next((section for section in inner if section is not None), None)


def _why_unknown(name: str, section: type[BaseModel] | None) -> str:
    if name in GONE:
        return f"this key is gone, because {GONE[name]}: delete it"
    return f"there is no such key{_nearest(section, name.rpartition('.')[2])}"


def _nearest(section: type[BaseModel] | None, name: str) -> str:
    here = list(_fields(section)) if section is not None else []
    elsewhere = [f"{group}.{name}" for group, fields in _sections().items() if name in fields]
    near = elsewhere[:1] or difflib.get_close_matches(name, here, n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _sections() -> dict[str, Iterable[str]]:
    return {
        name: field.annotation.model_fields
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
