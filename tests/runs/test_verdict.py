"""The last sentence of a run says no more than was measured, whatever became of the heap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from measured_runs import (
    FILTER,
    FOUND,
    LABELS,
    LABELS_ALONE,
    WITH_HEAP,
    difference,
    filtered,
    gain,
    labelling,
    measured,
    scores,
)
from nstudent.evaluation.refit_scores import RefitScores
from nstudent.evaluation.scores import Difference, Gap, HeapGain, Scores
from nstudent.runs.findings import findings
from nstudent.runs.measured import Measured
from nstudent.runs.verdict import points, verdict


def said(found: Scores, **changed: Any) -> str:
    run = measured(found, **changed)
    return verdict(run, findings(run))


def of(value: float, low: float, high: float, differing: int = 60) -> str:
    return said(scores(gain(value, low, high, differing)))


def chosen_without(found: HeapGain) -> Scores:
    return scores(found, final=found.labels_alone)


def test_a_gain_whose_interval_is_above_zero_is_a_gain() -> None:
    assert of(0.014, 0.006, 0.023) == (
        "Your unlabelled images helped: +1.4 points [0.6, 2.3] over the best that the labels alone gave."
    )


def test_a_gain_whose_interval_includes_zero_may_be_one() -> None:
    assert of(0.004, -0.002, 0.011) == (
        "Your unlabelled images may have helped: +0.4 points [-0.2, 1.1] over the best that the labels alone gave; "
        "the interval includes 0."
    )


@pytest.mark.parametrize("low", [0.0, 0.0004])
def test_an_interval_that_touches_zero_as_it_is_shown_includes_it(low: float) -> None:
    assert "may have helped" in of(0.004, low, 0.011)
    assert "[0.0, 1.1]" in of(0.004, low, 0.011)


def test_a_gain_that_few_test_images_decide_is_not_called_one() -> None:
    assert of(0.5, 0.25, 0.75, differing=9).endswith("; only 9 test images decide that.")
    assert "may have" not in of(0.5, 0.25, 0.75, differing=10)


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.002, "-0.2 points [-1.1, 0.7]"), (0.0, "0.0 points [-1.1, 0.7]"), (0.0004, "0.0 points")]
)
def test_what_is_not_above_zero_did_not_help(value: float, shown: str) -> None:
    found = of(value, -0.011, 0.007)
    assert found.startswith(f"Your unlabelled images did not help: {shown}")
    assert "helped" not in found


def test_a_loss_is_said_with_its_most_likely_reason_and_what_to_try() -> None:
    found = scores(gain(-0.136, -0.239, -0.036), labelling={LABELS: labelling(precision=0.6, share=0.1)})
    assert said(found).startswith("Your unlabelled images did not help: -13.6 points [-23.9, -3.6] against the best ")
    assert "Likely why: of the labels that 04-pseudolabel would give the validation images, only 60%" in said(found)
    assert "Try: more labelled images" in said(found)


def test_a_smaller_reason_is_named_where_there_is_no_greater_one() -> None:
    found = scores(gain(-0.01, -0.02, 0.01))
    assert "leaves no label of 1 classes: A/a. Try: filter.enabled=false." in said(
        found, filters={FILTER: filtered(gone=("A/a",))}
    )
    assert "No measurement says why." in said(found)


def test_a_test_that_is_small_is_no_reason_for_a_loss() -> None:
    assert "No measurement says why." in of(-0.05, -0.1, 0.01)


def test_a_final_classifier_of_the_labels_alone_is_never_said_to_owe_the_heap_anything() -> None:
    better = said(chosen_without(gain(0.02, 0.01, 0.03)))
    assert better.startswith("Your unlabelled images are not in the final classifier: the one chosen on validation")
    assert "better by +2.0 points [1.0, 3.0]" in better
    for value, low in ((0.004, -0.01), (-0.02, -0.03), (0.0, 0.0)):
        found = said(chosen_without(gain(value, low, 0.03)))
        assert found.startswith(
            "Your unlabelled images did not help: the classifier chosen on validation, 02-baseline, is"
        )
    for found in (better, said(chosen_without(gain(0.02, 0.01, 0.03, differing=3)))):
        assert "helped" not in found


def test_without_rounds_no_image_of_the_heap_was_used() -> None:
    found = said(scores(None), labels={}, filters={}, trained={}, rounds={})
    assert found == (
        "No unlabelled image was used, because rounds is 0. The final classifier is made from the labels alone and "
        "reaches 80.0% [78.0, 82.0] level accuracy on test."
    )


def test_a_heap_of_which_nothing_was_kept_did_not_help_and_the_filter_says_why() -> None:
    ended = "no pseudo-label was kept: pseudolabel.threshold is 1.0: lower it"
    found = said(scores(None, ended=ended), trained={}, filters={FILTER: filtered(ended=ended)})
    assert found.startswith(
        f"Your unlabelled images did not help: {ended}. The final classifier is made from the labels"
    )


def test_a_round_without_labels_does_not_hide_what_the_one_before_gave() -> None:
    found = said(scores(gain(0.014, 0.006, 0.023), ended="the filter drops every pseudo-label"))
    assert found.startswith("Your unlabelled images helped: +1.4")
    worse = said(scores(gain(-0.014, -0.023, 0.006), ended="the filter drops every pseudo-label"))
    assert "drops every" not in worse


def test_students_that_cost_too_much_did_not_help() -> None:
    found = said(scores(None))
    assert "every classifier that saw them costs more than final.max_gmacs" in found
    assert found.startswith("Your unlabelled images did not help")


def test_without_anything_to_compare_it_with_a_student_is_not_said_to_help() -> None:
    found = said(scores(None, final=WITH_HEAP))
    assert found.startswith("Whether your unlabelled images helped is not known")
    assert "learnt from them and reaches 80.0%" in found


def test_a_round_without_labels_makes_no_final_classifier_of_the_labels_alone() -> None:
    """The second round ended; the student of the first is all that is within the limit, or all that is not."""
    ended = "no pseudo-label was kept"
    found = said(scores(None, final=WITH_HEAP, ended=ended))
    assert found.startswith("Whether your unlabelled images helped is not known")
    assert "labels alone and reaches" not in found
    assert "costs more than final.max_gmacs" in said(scores(None, ended=ended))


def test_no_student_that_nobody_can_account_for() -> None:
    found = said(scores(None), trained={})
    assert found.startswith("Your unlabelled images were not used: no student was trained.")


def test_a_classifier_that_was_trained_again_has_a_gain_of_its_own() -> None:
    """What a person takes home is not what the first sentence is about."""
    found, once = scores(gain(0.014, 0.006, 0.023)), difference(-0.007, -0.02, 0.006)
    again = replace(WITH_HEAP, name="08-refit")
    refit = RefitScores(again, once, replace(LABELS_ALONE, name="teacher, refit"), once, {})

    said_first, said_then = said(found), said(found, refit=refit)

    assert said_then == said_first + (
        " In the classifier that the run gives, 08-refit, trained again on labels and validation together, they are "
        "worth -0.7 points [-2.0, 0.6] over the best that the labels alone gave, trained again in the same way."
    )
    assert said(found, refit=replace(refit, labels_alone=None, gain=None)) == said_first


def test_points_are_rounded_to_tenths_and_have_no_negative_zero() -> None:
    assert points(Difference(-0.0001, -0.00049, 0.0153, 0.5)) == "0.0 points [0.0, 1.5]"
    assert points(Difference(0.01, -0.01, 0.02, 0.5)) == "+1.0 points [-1.0, 2.0]"


def test_the_last_sentence_is_one_line_whatever_is_measured() -> None:
    runs: list[Measured] = [
        measured(replace(scores(found), final=final))
        for found in (gain(0.02, 0.01, 0.03), gain(-0.1, -0.2, 0.1))
        for final in (WITH_HEAP, LABELS_ALONE)
    ]
    for run in runs:
        assert "\n" not in verdict(run, findings(run))


def test_the_gain_is_said_over_the_hardest_of_those_without_the_heap_not_over_a_weaker_one_that_was_chosen() -> None:
    """Of thirty validation images the weaker one was chosen: a gain over it alone would flatter."""
    chosen, harder = gain(0.056, 0.045, 0.068), gain(0.014, 0.006, 0.023)
    weaker = gain(0.09, 0.08, 0.1)
    others = {
        name: Gap(each.difference, each.differing, FOUND)
        for name, each in {"labels-alone pool": harder, "01-teacher": weaker}.items()
    }
    assert said(scores(replace(chosen, others=others))) == (
        "Your unlabelled images helped: +1.4 points [0.6, 2.3] over the best that the labels alone gave "
        "(labels-alone pool; on validation 02-baseline was chosen)."
    )
    others["labels-alone pool"] = replace(others["labels-alone pool"], differing=9)
    assert "may have helped: +1.4 points" in said(scores(replace(chosen, others=others)))
    others["labels-alone pool"] = Gap(difference(-0.001, -0.01, 0.01), 60, FOUND)
    assert "did not help: -0.1 points" in said(scores(replace(chosen, others=others)))
