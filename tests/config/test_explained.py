"""Every key in words, and as a JSON schema."""

import re
from typing import Any

import jsonschema
import pytest
from nstudent.config.advice import WHEN
from nstudent.config.as_typed import field_at, typed_value
from nstudent.config.explained import Explained, all_keys, explained
from nstudent.config.file import load_config
from nstudent.config.json_schema import json_schema
from nstudent.config.members import MEMBERS
from nstudent.config.origins import resolved
from nstudent.config.schema import Config
from nstudent.config.yaml_text import valued
from nstudent.errors import ConfigError
from pydantic import TypeAdapter

KEYS = list(all_keys())


def _only(key: str) -> Explained:
    (found,) = explained(key)
    return found


def _valued(key: str) -> list[Explained]:
    """What is said of a key, less the keys of the kinds of members in a list."""
    return [found for found in explained(key) if not found.below]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_says_what_it_means_what_it_takes_and_when_to_change_it(key: str) -> None:
    assert _valued(key)
    for found in _valued(key):
        assert found.key == key
        assert found.meaning
        assert "any value" not in found.takes
        assert found.takes
        assert found.when


@pytest.mark.parametrize(("end", "advice"), WHEN.items())
def test_advice_is_short_and_the_values_in_it_are_taken(end: str, advice: str) -> None:
    assert re.fullmatch(r"[A-Z].*\.", advice)
    assert len(advice) <= 120
    kind, leaf = end.split(".")[0], end.split(".")[-1]
    key = next(key for key in KEYS if key == end or key.endswith(f".{end if kind not in MEMBERS else leaf}"))
    field = field_at(Config, key)
    assert field is not None
    for word in re.findall(r"\b(?:Set|set|Try) '?([^\s,;:']+)", advice):
        for value in () if word in ("it", "tensorboard") else (word.rstrip("."),):
            TypeAdapter(field.annotation).validate_python(valued(typed_value(value, field, key), key))


def test_keys_that_advice_names_are_there() -> None:
    named = {word for advice in WHEN.values() for word in re.findall(r"\b[a-z_]+\.[a-z_.]*[a-z]", advice)}
    named |= {word for advice in WHEN.values() for word in re.findall(r"\b[a-z]+_[a-z_]+\b", advice)}
    assert {"data.folds", "clip_norm"} <= named
    named -= {word for key in KEYS for found in explained(key) for word in found.takes.split()}
    assert [word for word in named if not any(key == word or key.endswith(f".{word}") for key in KEYS)] == []


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
    found = next(each for each in explained(key) if each.kind in ("", "network"))
    assert (found.takes, found.default) == (takes, default)


def test_a_group_names_its_keys() -> None:
    assert {"data.root", "data.levels"} <= set(_only("data").below)
    assert "student.noise" in _only("student").below
    assert {"seed", "teacher"} <= set(_only("").below)
    assert _only("seed").below == ()


def test_a_list_of_members_names_the_keys_of_each_kind_apart() -> None:
    whole, network, probe = explained("teacher.members")
    assert (whole.kind, network.kind, probe.kind) == ("", "network", "probe")
    assert whole.takes == "a list of groups of keys"
    assert "teacher.members.stem" in network.below
    assert "teacher.members.features" not in network.below
    assert "teacher.members.features" in probe.below
    assert "teacher.members.stem" not in probe.below


def test_probes_have_the_keys_of_probes_alone() -> None:
    assert [found.kind for found in explained("probe.members")] == ["", "probe"]
    assert "probe.members.features" in KEYS
    assert "probe.members.stem" not in KEYS
    with pytest.raises(ConfigError, match=r"^probe\.members\.stem: there is no such key"):
        explained("probe.members.stem")


def test_a_key_that_means_different_things_is_explained_for_each_kind_of_member() -> None:
    network, probe = explained("teacher.members.0.image_size")
    assert (network.kind, probe.kind) == ("network", "probe")
    assert network.meaning == _only("student.model.image_size").meaning
    assert probe.meaning == _only("probe.members.image_size").meaning != network.meaning
    assert network.when == WHEN["network.image_size"] == _only("student.model.image_size").when
    assert probe.when == WHEN["probe.image_size"]
    assert _only("data.image_size").when == WHEN["data.image_size"]


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
    used = {found.when for key in KEYS for found in explained(key)}
    assert [end for end, advice in WHEN.items() if advice not in used] == []


def test_the_longest_end_of_a_key_that_fits_has_the_advice() -> None:
    assert _only("evaluate.batch_size").when == WHEN["evaluate.batch_size"]
    assert _only("student.batch_size").when == WHEN["batch_size"]
    assert _only("student.noise.flip").when == _only("teacher.noise.flip").when == WHEN["noise.flip"]


# --- the JSON schema ---


def _problems(page: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(json_schema()).iter_errors(page)]


def test_the_json_schema_is_one_and_takes_what_we_take() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    config = load_config(None, ["data.levels=[a, b]", "pseudolabel.threshold=[0.1, 0.2]"])
    assert _problems(config.model_dump(mode="json")) == []
    assert _problems({"teacher": {"members": [{"backbones": ["a"]}, {"kind": "network"}, {}]}}) == []
    assert _problems({"probe": {"members": [{"kind": "probe", "mirror": True}]}}) == []


@pytest.mark.parametrize(
    "page",
    [
        {"sed": 1},
        {"data": {"image_size": 4}},
        {"teacher": {"members": [{"backbone": ["a"]}]}},
        {"teacher": {"members": [{"kind": "nobody"}]}},
        {"teacher": {"members": []}},
        {"probe": {"members": [{"kind": "network"}]}},
        {"probe": {"members": [{"backbones": ["a"]}]}},
        {"student": {"noise": {"flip": "yes"}}},
        {"data": {"storage": "zip"}},
    ],
)
def test_the_json_schema_refuses_what_we_refuse(page: dict[str, Any]) -> None:
    assert _problems(page)


def test_an_editor_shows_what_a_key_means() -> None:
    described = json_schema()["$defs"]["DataConfig"]["properties"]["image_size"]
    assert " ".join(described["description"].split()) == _only("data.image_size").meaning


def test_a_group_that_may_be_left_out_is_explained_with_its_keys() -> None:
    key, group = explained("student.consistency")
    assert (key.takes, key.default) == ("a group of keys, or null", None)
    assert "student.consistency.begins" in group.below
    (begins,) = explained("student.consistency.begins")
    assert (begins.default, begins.takes) == (0.3, "a number of at least 0 and below 1")
    assert explained("probe.members")[0].takes == "a list of groups of keys, or null"
