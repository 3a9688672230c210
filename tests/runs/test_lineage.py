"""What a classifier was made from: a choice stands for what it took, and what nobody took costs nobody anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from measured_runs import filtered, trained
from nstudent.runs.lineage import Cost, cost, made_from
from nstudent.runs.step_metrics import Candidate, ChoiceMetrics, LabelMetrics
from nstudent.storage.artifact import Manifest, Metrics


def manifest(role: str, metrics: Metrics, *inputs: str, seconds: float = 60.0) -> Manifest:
    read = dict.fromkeys(inputs, "id")
    return Manifest("some", role, 0, asked={}, inputs=read, files={}, metrics=metrics.to_json(), seconds=seconds)


def choice(*parts: str) -> ChoiceMetrics:
    weights = dict.fromkeys(parts, 1 / len(parts))
    one = Candidate("taken", weights, False, 0.01, 0.8, None, 0.0, None, None)
    other = Candidate("other", {"02-baseline": 1.0}, False, 0.01, 0.8, None, 0.0, None, None)
    return ChoiceMetrics("taken", "other", None, (other, one))


def a_run(*taken: str) -> dict[str, Manifest]:
    """One round, whose labeller was made of these."""
    alone = trained()
    judged = replace(filtered(), image_passes=500, training_gmacs=5.0)
    return {
        "01-teacher": manifest("classifier", replace(alone, image_passes=10, training_gmacs=1.0), "00-data"),
        "02-baseline": manifest("classifier", replace(alone, image_passes=200, training_gmacs=2.0), "00-data"),
        "03-choose": manifest("labeller", choice(*taken), "00-data", "01-teacher", "02-baseline"),
        "04-pseudolabel": manifest("labels", LabelMetrics(9, {}, 9, 9, (), 1.0), "00-data", "03-choose"),
        "05-filter": manifest("selection", judged, "00-data", "04-pseudolabel"),
        "06-student": manifest("classifier", alone, "00-data", "03-choose", "04-pseudolabel", "05-filter"),
    }


HEAP = {"01-teacher", "03-choose", "04-pseudolabel", "05-filter", "06-student"}


@pytest.mark.parametrize(
    ("parts", "taken", "behind"),
    [
        (["01-teacher"], ["01-teacher"], {"01-teacher"}),
        (["02-baseline", "01-teacher"], ["01-teacher"], {"01-teacher", "02-baseline"}),
        (["06-student"], ["01-teacher"], HEAP),
        (["06-student"], ["01-teacher", "02-baseline"], HEAP | {"02-baseline"}),
        (["06-student"], ["02-baseline"], HEAP - {"01-teacher"} | {"02-baseline"}),
        (["06-student", "01-teacher"], ["01-teacher"], HEAP),
    ],
)
def test_a_classifier_is_made_from_what_labelled_for_it_and_not_from_what_was_not_taken(
    parts: list[str], taken: list[str], behind: set[str]
) -> None:
    assert made_from(parts, a_run(*taken)) == behind


def test_the_cost_of_steps_is_that_of_their_trainings() -> None:
    assert cost(HEAP, a_run("01-teacher")) == Cost(training_gmacs=1006.0, image_passes=47_550)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [({"training_gmacs": None}, Cost(None, 47_550)), ({"image_passes": None}, Cost(1006.0, None))],
)
def test_a_cost_that_was_not_counted_makes_the_sum_unknown(changed: dict[str, Any], expected: Cost) -> None:
    run = a_run("01-teacher")
    judged = replace(filtered(), image_passes=500, training_gmacs=5.0)
    run["05-filter"] = manifest("selection", replace(judged, **changed), "04-pseudolabel")
    assert cost(HEAP, run) == expected
