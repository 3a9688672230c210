"""Every key in words, and as a JSON schema."""

from typing import Any

import jsonschema
import pytest
from nstudent.config.advice import WHEN
from nstudent.config.as_typed import field_at
from nstudent.config.explained import all_keys, explained
from nstudent.config.file import load_config
from nstudent.config.json_schema import json_schema
from nstudent.config.origins import resolved
from nstudent.config.schema import Config
from nstudent.errors import ConfigError

KEYS = list(all_keys())


@pytest.mark.parametrize("key", KEYS)
def test_every_key_says_what_it_means_and_what_it_takes(key: str) -> None:
    found = explained(key)
    assert found.key == key
    assert found.meaning
    assert "any value" not in found.takes
    assert found.takes


def test_the_keys_are_those_of_a_resolved_configuration() -> None:
    shown = {".".join(part for part in line.key.split(".") if not part.isdecimal()) for line in resolved(None, [])}
    assert shown <= set(KEYS)
    assert all(field_at(Config, key) is not None for key in KEYS)


@pytest.mark.parametrize(
    ("key", "takes", "default"),
    [
        ("data.image_size", "a whole number from 8 to 1024", 32),
        ("teacher.max_gmacs", "a number above 0, or null", None),
        ("seed", "a whole number of at least 0", 0),
        ("student.noise.cutmix", "a number from 0 to 1", 0.5),
        ("teacher.noise.cutmix", "a number from 0 to 1", 0.0),
        ("data.storage", "auto or pixels or jpeg or original", "auto"),
        ("data.labelled", "a number above 0, or all, or null", None),
        ("data.levels", "a list of text, or null", None),
        ("evaluate.confidence", "a number above 0 and below 1", 0.95),
        ("student.model.head_width", "a whole number of at least 1", 128),
        ("teacher.members.0.head_width", "a whole number of at least 1", 64),
        ("data.allow_case", "true or false", False),
    ],
)
def test_range_and_default_are_those_of_the_schema(key: str, takes: str, default: Any) -> None:
    found = explained(key)
    assert (found.takes, found.default) == (takes, default)


def test_a_group_names_its_keys() -> None:
    assert {"data.root", "data.levels"} <= set(explained("data").below)
    assert "student.noise" in explained("student").below
    assert {"seed", "teacher"} <= set(explained("").below)
    assert explained("seed").below == ()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("data.imagesize", "did you mean 'data.image_size'?"),
        ("epochs", "did you mean 'teacher.epochs'?"),
        ("seed.more", "did you mean"),
        ("filter.average_from", "this key is gone, because predictions are averaged over the whole training"),
        ("zzz", "nstudent config explain lists them"),
    ],
)
def test_a_key_that_is_not_there_is_refused_with_the_nearest_one(key: str, said: str) -> None:
    with pytest.raises(ConfigError, match="^" + key) as error:
        explained(key)
    assert said in str(error.value)


def test_advice_is_about_keys_that_are_there() -> None:
    unused = [end for end in WHEN if not any(key == end or key.endswith(f".{end}") for key in KEYS)]
    assert unused == []


def test_the_longest_end_of_a_key_that_fits_has_the_advice() -> None:
    assert explained("evaluate.batch_size").when == WHEN["evaluate.batch_size"]
    assert explained("student.batch_size").when == WHEN["batch_size"]
    assert explained("student.noise.flip").when == explained("teacher.noise.flip").when == WHEN["noise.flip"]


# --- the JSON schema ---


def _problems(page: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(json_schema()).iter_errors(page)]


def test_the_json_schema_is_one_and_takes_what_we_take() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    config = load_config(None, ["data.levels=[a, b]", "pseudolabel.threshold=[0.1, 0.2]"])
    assert _problems(config.model_dump(mode="json")) == []
    assert _problems({"teacher": {"members": [{"backbones": ["a"]}, {"kind": "network"}, {}]}}) == []


@pytest.mark.parametrize(
    "page",
    [
        {"sed": 1},
        {"data": {"image_size": 4}},
        {"teacher": {"members": [{"backbone": ["a"]}]}},
        {"teacher": {"members": [{"kind": "nobody"}]}},
        {"teacher": {"members": []}},
        {"student": {"noise": {"flip": "yes"}}},
        {"data": {"storage": "zip"}},
    ],
)
def test_the_json_schema_refuses_what_we_refuse(page: dict[str, Any]) -> None:
    assert _problems(page)


def test_an_editor_shows_what_a_key_means() -> None:
    described = json_schema()["$defs"]["DataConfig"]["properties"]["image_size"]
    assert described["description"] == explained("data.image_size").meaning
