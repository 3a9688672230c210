"""Choices of a training that make no sense together are refused in a line; what changes nothing is not asked for."""

from typing import Any

import pytest
from nstudent.config.file import load_config
from nstudent.config.schema import TrainingConfig
from nstudent.errors import ConfigError

KEYS: dict[str, tuple[Any, str]] = {
    "agc_factor": (0.02, "clip=agc"),
    "step_epochs": (2.0, "schedule=step"),
    "step_factor": (0.5, "schedule=step"),
    "plateau_patience": (2, "schedule=plateau"),
    "plateau_factor": (0.5, "schedule=plateau"),
}
"""A key that means something with one choice alone, and that choice."""


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_another_choice_is_refused_and_that_of_its_own_is_not(key: str) -> None:
    value, choice = KEYS[key]
    with pytest.raises(ConfigError, match=f"{key} is a key of {choice}"):
        load_config(None, [f"student.{key}={value}"])
    assert getattr(load_config(None, [f"student.{key}={value}", f"student.{choice}"]).student, key) == value


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["teacher.clip=agc", "teacher.clip_norm=2"], "clip_norm is a key of clip=norm, and clip is agc"),
        (["teacher.progressive_start=16"], "progressive_start is for trainings in stages"),
        (["teacher.finish_epochs=1"], "set train_image_size"),
        (["teacher.finish_rate=0.5"], "finish_rate is for trainings with a finish"),
        (["teacher.train_image_size=64"], "train_image_size=64 is not below data.image_size=32"),
        (["student.train_image_size=32", "student.finish_epochs=1"], "student: train_image_size=32 is not below"),
        (
            ["student.progressive_stages=2", "student.progressive_start=32"],
            "cannot grow from progressive_start=32 to 32",
        ),
        (
            ["student.train_image_size=16", "student.progressive_stages=2", "student.progressive_start=20"],
            "cannot grow from progressive_start=20 to 16",
        ),
        (
            ["teacher.members=[{}, {image_size: 16}]", "teacher.train_image_size=24", "teacher.finish_epochs=1"],
            "teacher: train_image_size=24 changes nothing for a network of image_size=16",
        ),
        (
            ["student.model={image_size: 16}", "student.progressive_stages=4"],
            "student: images grow from 20 px on, which a network of image_size=16 never sees",
        ),
        (["teacher.train_image_size=16", "teacher.epochs=2", "teacher.finish_epochs=2"], "2 leave none"),
        (["filter.train_image_size=16", "filter.finish_epochs=1"], "the filter keeps no network"),
        (["final.refit=true", "student.schedule=plateau"], "student.schedule=plateau goes by the validation images"),
        (["teacher.schedule=sawtooth"], "teacher.schedule"),
        (["teacher.layer_decay=1.5"], "teacher.layer_decay"),
    ],
)
def test_what_makes_no_sense_together_is_refused_in_one_line(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["teacher.clip=agc"],
        ["teacher.clip=agc", "teacher.clip_norm=null"],
        ["teacher.train_image_size=32"],
        ["teacher.members=[{image_size: 24}]", "teacher.train_image_size=16", "teacher.finish_epochs=1"],
        ["student.model={image_size: 24}", "student.progressive_stages=4"],
        ["teacher.train_image_size=24", "teacher.progressive_stages=4", "teacher.finish_epochs=2"],
        ["filter.train_image_size=24", "filter.progressive_stages=2"],
    ],
)
def test_what_makes_sense_is_taken(words: list[str]) -> None:
    load_config(None, words)


def test_none_of_the_choices_is_asked_for_where_it_changes_nothing() -> None:
    chosen = {
        *("optimizer_options", "schedule", "layer_decay", "head_rate", "clip", "train_image_size"),
        *("progressive_stages", "progressive_start", "finish_epochs", "finish_rate", *KEYS),
    }
    assert chosen <= set(TrainingConfig.model_fields)
    assert not chosen & set(TrainingConfig().asked())
    assert TrainingConfig(optimizer_options={"momentum": 0.5}).asked()["optimizer_options"] == {"momentum": 0.5}
