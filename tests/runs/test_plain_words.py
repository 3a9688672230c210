"""The words of a run in plain ones."""

from __future__ import annotations

import pytest
from nstudent.runs.plan import STAGES
from nstudent.runs.words import COSTS, DOES, legend

BOTH = ("level accuracy", "whole path")


def test_every_stage_says_what_it_does() -> None:
    assert DOES.keys() == STAGES.keys()


@pytest.mark.parametrize("meaning", [*DOES.values(), *legend(["pool", *STAGES], BOTH).values(), *COSTS.values()])
def test_no_meaning_needs_a_word_that_is_explained_nowhere(meaning: str) -> None:
    assert not {"heap", "labeller", "pseudo-label", "pseudo-labels", "logits"} & set(meaning.replace(",", "").split())


def test_a_legend_has_the_words_that_stand_in_the_table_alone() -> None:
    assert list(legend(["02-teacher", "labels-alone pool"], BOTH)) == ["teacher", "pool", *BOTH]
    assert list(legend(["06-student"], BOTH)) == ["student", *BOTH]


def test_with_one_level_the_level_accuracy_is_the_share_of_images_that_are_right() -> None:
    assert legend([], ["level accuracy"]) == {"level accuracy": "the share of images whose label is right"}
