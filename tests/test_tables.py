"""Tables of alternatives, and the names by which a configuration chooses from them."""

from collections.abc import Mapping
from typing import get_args

import pytest
from nstudent.config.schema import Config, ModelConfig, TrainingConfig
from nstudent.config.types import DecoderName, Section
from nstudent.errors import ConfigError
from nstudent.evaluation.pool_weights import POOL_WEIGHTS
from nstudent.labels.decoders import DECODERS
from nstudent.models.heads import HEADS
from nstudent.tables import chosen
from nstudent.training.clipping import CLIPS
from nstudent.training.learning_rates import SCHEDULES
from nstudent.training.losses import LOSSES
from nstudent.training.schedules import LEVEL_SCHEDULES


def test_an_entry_is_found_by_its_name() -> None:
    assert chosen({"one": 1, "two": 2}, "two", "student.number") == 2


def test_a_name_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"student\.number: there is no 'three': choose from one, two"):
        chosen({"one": 1, "two": 2}, "three", "student.number")


@pytest.mark.parametrize(
    ("section", "key", "table"),
    [
        (ModelConfig, "head", HEADS),
        (TrainingConfig, "loss", LOSSES),
        (TrainingConfig, "clip", CLIPS),
        (TrainingConfig, "level_schedule", LEVEL_SCHEDULES),
        (TrainingConfig, "schedule", SCHEDULES),
        (Config, "pool_weights", POOL_WEIGHTS),
    ],
    ids=["head", "loss", "clip", "level_schedule", "schedule", "pool_weights"],
)
def test_the_configuration_names_every_entry_of_a_table_and_no_other(
    section: type[Section], key: str, table: Mapping[str, object]
) -> None:
    """The configuration is read without torch: it spells the names itself, so that a wrong one is refused at once."""
    field = section.model_fields[key]
    assert get_args(field.annotation) == tuple(table), f"write the names of the table into {section.__name__}.{key}"
    assert field.default in table
    for name in table:
        assert name in (field.description or ""), f"say in the docstring of {section.__name__}.{key} what '{name}' is"


def test_the_configuration_names_every_decoder_and_says_what_it_does() -> None:
    assert get_args(DecoderName) == tuple(DECODERS), "write the names of the table into DecoderName of config.types"
    described = Config.model_fields["decoder"].description or ""
    for name in ("auto", *DECODERS):
        assert f"{name}:" in described or f"{name} " in described, f"say in Config.decoder what '{name}' is"
