"""YAML pages built to take the memory, the time, or a value other than the one that is read."""

import json
import math
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.config.file import load_config
from nstudent.config.schema import Config
from nstudent.config.yaml_text import parse_yaml
from nstudent.errors import ConfigError

_BOMBS = {
    "aliases": "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 200)),
    "merge keys": "a: &a {seed: 1}\nb: &b {<<: *a}\nc: {<<: [*a, *b]}\n",
    "an alias to itself": "&a [*a]",
    "lists in lists": "[" * 100_000,
    "groups in groups": "{a: " * 100_000,
    "blocks in blocks": "- " * 100_000,
    "questions": "? " * 100_000,
    "closed": "[" * 50_000 + "]" * 50_000,
    "many values": "- x\n" * 200_000,
    "many values in a line": "[" + "x," * 400_000 + "]",
    "many keys": "".join(f"k{i}: 1\n" for i in range(60_000)),
    "many pages": "--- x\n" * 100_000,
    "digits": "seed: " + "9" * 100_000,
    "sixties": "seed: " + ":".join(["59"] * 100_000),
    "sixties with a point": "seed: " + ":".join(["59"] * 1_000) + ".5",
    "hexadecimal": "seed: 0x" + "f" * 100_000,
    "a tag": "!!python/object/apply:os.mkdir [canary]",
    "a tag on a value": "seed: !!python/object/new:os.mkdir [canary]",
    "a module": "!!python/module:os",
    "a binary": "seed: !!binary aGVsbG8=",
    "a directive": "%TAG ! tag:yaml.org,2002:python/\n---\n!object/apply:os.mkdir [canary]",
}


@pytest.mark.slow
def test_bombs_are_refused_in_little_memory(
    tmp_path: Path, refusals: Callable[..., tuple[dict[str, str], float]]
) -> None:
    for name, text in _BOMBS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with open(tmp_path / "a hundred megabytes.yaml", "wb") as file:
        file.truncate(100 << 20)
    said, grown_mib = refusals(
        "from nstudent.config.file import load_config",
        "load_config(path)",
        "ConfigError",
        sorted(tmp_path.glob("*.yaml")),
    )
    assert said.keys() == {*_BOMBS, "a hundred megabytes"}
    assert all(said.values())
    assert all(len(line) < 1_010 for each in said.values() for line in each.split("\n"))
    assert grown_mib < 200
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-1E+3", -1000.0),
        ("off", False),
        ("on", True),
        ("2001-99-99", "2001-99-99"),
        ("0o10", "0o10"),
        ("0b11", 3),
        ("1_000", 1000),
        ("=", "="),
        ("~", None),
        ("1.", 1.0),
        (".5", 0.5),
        ("'1e-3'", "1e-3"),
    ],
)
def test_what_yaml_makes_of_a_word(text: str, value: object) -> None:
    made = parse_yaml(text, "page")
    assert made == value
    assert type(made) is type(value)


def test_nan_is_read_and_refused() -> None:
    assert math.isnan(parse_yaml(".nan", "page"))
    for key in ("teacher.learning_rate", "checkpoint_minutes", "seed", "data.validation", "pseudolabel.threshold"):
        for value in (".nan", ".inf", "-.inf", "1e999"):
            with pytest.raises(ConfigError, match=key):
                load_config(None, [f"{key}={value}"])


# --- every page and every override ---


def _check_lines(error: ConfigError) -> None:
    assert all(line.isprintable() for line in str(error).split("\n"))


def _all_keys() -> list[str]:
    keys = []
    for name, value in Config().model_dump().items():
        keys.append(name)
        if isinstance(value, dict):
            keys += [f"{name}.{key}" for key in value]
            keys += [f"{name}.{key}.{below}" for key, part in value.items() if isinstance(part, dict) for below in part]
    return keys


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["all", "soft", "digits"]),
)
_values = st.recursive(
    _scalars, lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4)
)
_words = st.tuples(
    st.one_of(st.sampled_from(_all_keys()), st.text(string.printable, max_size=20)),
    st.one_of(_values.map(json.dumps), st.text(max_size=40)),
).map("=".join)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.lists(_words, max_size=4))
def test_any_overrides_give_a_config_or_one_kind_of_error(words: list[str]) -> None:
    try:
        config = load_config(None, words)
    except ConfigError as error:
        _check_lines(error)
        return
    # What was accepted can be kept with the run and read back.
    assert Config.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.slow
@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(sorted(Config.model_fields)), _values, max_size=4))
def test_any_page_of_known_keys_gives_a_config_or_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, page: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "known.yaml"
    path.write_text(json.dumps(page))
    try:
        assert isinstance(load_config(path), Config)
    except ConfigError as error:
        _check_lines(error)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_config_or_one_kind_of_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    try:
        assert isinstance(load_config(path), Config)
    except ConfigError as error:
        _check_lines(error)
