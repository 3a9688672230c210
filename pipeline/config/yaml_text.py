"""YAML text, read without losing how each word was written: 007 and 2024-05-01 may be numbers, dates, or names.

Which of them a word is only the key can tell that it stands for, so every unquoted word is read as a ``Word``, which
keeps its letters. ``config.as_typed`` decides, by the schema.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from nstudent.errors import ConfigError, summary

_MAX_PAGE_BYTES = 1_000_000
_MAX_VALUES = 50_000
"""Number of values that one page may hold; PyYAML takes a second for so many."""
_MAX_DIGITS = 100
_TAG = "tag:yaml.org,2002:"
_KINDS = {f"{_TAG}{kind}": kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")}
_OCTAL = re.compile(r"[-+]?0[0-9_]+")


@dataclass(frozen=True)
class Word:
    """An unquoted word of a page."""

    letters: str
    """The word as it was written."""
    kind: str
    """What YAML takes it for: ``int``, ``str``, ``timestamp`` ..."""
    line: int
    """Where it stands, from 1."""

    @property
    def value(self) -> Any:
        """What YAML makes of it: a number, a truth value, nothing, or text. Dates are text.

        Raises:
            ConfigError: It is a number in a notation that a person would not take for one, or of too many digits.
            ValueError: It is no number, though a tag says so.
        """
        if self.kind not in ("int", "float", "bool", "null"):
            return self.letters
        if self.kind in ("int", "float"):
            self._check_number()
        node = yaml.ScalarNode(f"{_TAG}{self.kind}", self.letters)
        return yaml.SafeLoader("").construct_object(node)

    def _check_number(self) -> None:
        if len(self.letters) > _MAX_DIGITS:
            raise ConfigError(f"line {self.line}: a number of {len(self.letters):,} characters")
        # YAML 1.1 reads 010 as 8 and 1:30 as 90.
        if ":" in self.letters or _OCTAL.fullmatch(self.letters):
            raise ConfigError(
                f"'{self.letters}' is no number here: write one without leading zeros and colons, or text in quotes"
            )


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
        """Keys are words as they stand, whatever YAML would make of them."""
        if not isinstance(node, yaml.MappingNode):
            return super().construct_mapping(node, deep)
        found: dict[str, Any] = {}
        for key, value in node.value:
            where = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{where}: a key is a word, not a list or a group")
            if key.value in found:
                raise ConfigError(f"{where}: the key '{key.value}' stands twice: keep one")
            found[key.value] = self.construct_object(value, deep=deep)
        return found

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.style is None and node.tag in _KINDS:
            return Word(node.value, _KINDS[node.tag], node.start_mark.line + 1)
        return super().construct_object(node, deep)


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


def dump_flow(value: Any) -> str:
    """YAML text on one line, which ``parse_yaml`` reads back as the same value."""
    text = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=float("inf")
    )
    text = text.removesuffix("\n").removesuffix("\n...")
    if text.isprintable():
        return text
    # Line ends and marks that turn the direction of writing: YAML has the escapes of JSON, and those of Python.
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in quoted)


def parse_words(text: str, where: str) -> Any:
    """Parse YAML text and leave unquoted values as they were written (``Word``); ``where`` names it in errors.

    Raises:
        ConfigError: The text is not YAML, or it holds a tag, an alias or a key that stands twice.
    """
    try:
        tree = yaml.load(text, Loader=_Loader)
        return None if isinstance(tree, Word) and tree.kind == "null" else tree
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # A tag on a value that it does not fit (!!set []) makes PyYAML itself stumble.
        said = summary(error, 300)
        raise ConfigError(f"{where} is not readable YAML: {said}") from error


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text as values of no known kind; ``where`` names it in errors.

    Raises:
        ConfigError: As ``parse_words``, or a number cannot be read.
    """
    return valued(parse_words(text, where), where)


def valued(tree: Any, where: str) -> Any:
    """A tree of words with what YAML makes of each.

    Raises:
        ConfigError: A number cannot be read.
    """
    if isinstance(tree, dict):
        return {key: valued(value, where) for key, value in tree.items()}
    if isinstance(tree, list):
        return [valued(value, where) for value in tree]
    try:
        return tree.value if isinstance(tree, Word) else tree
    except (ConfigError, ValueError, LookupError) as error:
        raise ConfigError(f"{where}: {summary(error)}") from error


def as_names(tree: Any) -> Any:
    """A tree of words with each as it was written, for names; a key with nothing behind it has ``None``."""
    if isinstance(tree, dict):
        return {str(key): _below(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [as_names(value) for value in tree]
    return tree.letters if isinstance(tree, Word) else tree


def _below(value: Any) -> Any:
    return None if isinstance(value, Word) and value.letters in ("", "~", "null") else as_names(value)


def read_words(path: Path) -> Any:
    """Read a YAML page, at most a megabyte, and leave unquoted values as they were written.

    Raises:
        ConfigError: The file cannot be read, is too large, or is not UTF-8 text or YAML.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_PAGE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_PAGE_BYTES:
        raise ConfigError(f"{path} has more than the {_MAX_PAGE_BYTES:,} bytes that a page may have")
    try:
        return parse_words(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error
