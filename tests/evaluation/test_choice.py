"""Which classifier is chosen: decisions from differences on held-out images, their errors, and what is known before."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from nstudent.evaluation.choice import PRIORS, WIDER_POOL, Contender, Kind, Prior, best, expected_gains, paired_gap
from nstudent.evaluation.metrics import Ratio

POINT = 0.01


def ratio(right: int, wrong: int, offset: int = 0) -> Ratio:
    """Scores of images, of which the first ones are wrong from ``offset`` on."""
    scores = np.ones((right + wrong, 2))
    scores[offset : offset + wrong, 0] = 0
    return scores


# The errors are those of 180 images of digits (1.1 points), of 296 of groceries (1.6), of 1,000 (0.55) and of 20 (6).
@pytest.mark.parametrize(
    ("kind", "error", "gap", "taken"),
    [
        ("heap", 1.1, -0.3, True),
        ("heap", 1.1, -1.2, False),
        ("heap", 1.6, -1.1, True),
        ("heap", 1.6, -2.6, False),
        ("heap", 0.55, -0.1, True),
        ("heap", 0.55, -0.5, False),
        ("heap", 6.0, -5.0, True),
        ("heap", 6.0, -20.0, False),
        ("labels", 1.1, 0.3, True),
        ("labels", 1.1, -0.3, False),
        ("labels", 6.0, -3.0, False),
        ("pool", 1.1, -0.5, True),
        ("pool", 1.1, -2.0, False),
        ("pool", 0.3, -0.3, False),
        ("pool", 6.0, -2.0, True),
    ],
)
def test_the_decision_weighs_a_difference_against_its_error_and_what_is_known(
    kind: Kind, error: float, gap: float, taken: bool
) -> None:
    """Of the three students that the sign of the difference refused, -0.3, -2.6 and -1.1 points, two are taken."""
    assert (PRIORS[kind].mean_given(gap * POINT, error * POINT) > 0) is taken


@pytest.mark.parametrize(
    ("gap", "error", "expected"), [(-0.3, 1.1, 0.32), (-2.6, 1.6, -0.95), (0.0, 1.1, 0.57), (7.4, 2.0, 5.42)]
)
def test_what_is_expected_of_a_student(gap: float, error: float, expected: float) -> None:
    assert PRIORS["heap"].mean_given(gap * POINT, error * POINT) / POINT == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("kind", "expected"), [("labels", 0.93), ("pool", 1.32)])
def test_what_is_expected_of_others_that_are_a_point_better(kind: Kind, expected: float) -> None:
    assert PRIORS[kind].mean_given(POINT, 1.1 * POINT) / POINT == pytest.approx(expected, abs=0.01)


def test_a_large_difference_is_believed_although_it_is_unusual() -> None:
    """With a normal prior alone 10 points at an error of 2 would be 3.6: trainings that fail would stay in the race."""
    assert PRIORS["heap"].mean_given(-0.10, 0.02) < -0.07
    assert PRIORS["labels"].mean_given(0.10, 0.02) > 0.07


@pytest.mark.parametrize("error", [1e-4, 0.01, 0.5])
def test_a_difference_that_is_far_from_all_that_is_known_is_finite(error: float) -> None:
    assert math.isfinite(Prior(0.0, 1e-4).mean_given(1.0, error))
    assert math.isfinite(Prior(0.0, 1e-4).mean_given(-1.0, error))


def test_what_is_expected_rises_with_what_is_seen() -> None:
    for kind, prior in PRIORS.items():
        found = [prior.mean_given(gap / 1000, 0.011) for gap in range(-100, 101)]
        assert found == sorted(found), kind


def test_the_error_is_that_of_a_paired_difference() -> None:
    """10 images that the first alone has right and 4 that the second alone has, of 200."""
    first, second = ratio(190, 10, offset=0), ratio(184, 16, offset=6)
    gap, error = paired_gap(first, second)
    assert gap == pytest.approx(6 / 200)
    # Two images are added: 6.5 + 0.5 and 12.5 + 0.5 discordant halves, of 202.
    differ = 6 + 12 + 1
    assert error == pytest.approx(math.sqrt(differ - 6**2 / 202) / 202)


def test_images_that_do_not_count_are_left_out() -> None:
    first, second = ratio(15, 5), ratio(12, 8)
    nothing = np.zeros((30, 2))
    assert paired_gap(np.vstack([first, nothing]), np.vstack([second, nothing])) == paired_gap(first, second)


def test_two_that_agree_on_a_few_images_may_still_differ() -> None:
    """Their error is not 0, and smaller with more images."""
    errors = [paired_gap(ratio(images, 0), ratio(images, 0))[1] for images in (5, 50, 500)]
    assert errors == pytest.approx([1 / 7, 1 / 52, 1 / 502])


def contenders(teacher: Ratio, baseline: Ratio, student: Ratio, *pools: tuple[str, Ratio]) -> list[Contender]:
    parts = ("teacher", "baseline", "student")
    return [
        Contender("teacher", "reference", (), teacher),
        Contender("baseline", "labels", (), baseline),
        Contender("student", "heap", (), student),
        *(Contender(name, "pool", parts, found) for name, found in pools),
    ]


def test_nothing_is_expected_of_the_reference_over_itself() -> None:
    assert expected_gains(contenders(ratio(90, 10), ratio(90, 10), ratio(90, 10)))["teacher"] == 0.0


def test_with_few_images_what_is_known_decides() -> None:
    """One image of 20 speaks for the teacher; students of this kind are better on average."""
    gains = expected_gains(contenders(ratio(18, 2), ratio(17, 3), ratio(17, 3)))
    assert gains["student"] > gains["teacher"] > gains["baseline"]


def test_with_many_images_these_decide() -> None:
    gains = expected_gains(contenders(ratio(9_000, 1_000), ratio(9_050, 950), ratio(8_900, 1_100)))
    assert gains["baseline"] > gains["teacher"] > gains["student"]
    assert gains["student"] == pytest.approx(-0.01, abs=0.001)


def test_a_pool_is_compared_with_the_part_of_which_most_is_expected() -> None:
    """It is not to win by what is known of a student that is one of its parts."""
    teacher, student = ratio(150, 50), ratio(180, 20)
    gains = expected_gains(
        contenders(teacher, teacher, student, ("as the student", student), ("as the teacher", teacher))
    )
    assert gains["as the student"] - gains["student"] == pytest.approx(PRIORS["pool"].mean_given(0.0, 1 / 202))
    assert gains["as the teacher"] < gains["student"]


@pytest.mark.parametrize(("lost", "is_wider"), [(0, True), (1, True), (12, False)])
def test_a_pool_is_compared_with_a_pool_of_some_of_its_parts_if_more_is_expected_of_that(
    lost: int, is_wider: bool
) -> None:
    """One image of 300 does not speak against the heap; twelve do."""
    teacher, alone = ratio(200, 100), ratio(220, 80)
    every = [
        Contender("teacher", "reference", (), teacher),
        Contender("probe", "probe", (), ratio(210, 90)),
        Contender("student", "heap", (), ratio(205, 95)),
        Contender("alone", "pool", ("teacher", "probe"), alone),
        Contender("all", "pool", ("teacher", "probe", "student"), ratio(220 - lost, 80 + lost, offset=10)),
    ]
    gains = expected_gains(every)
    gap, error = paired_gap(every[-1].ratio, alone)
    assert gains["all"] - gains["alone"] == pytest.approx(WIDER_POOL.mean_given(gap, error))
    assert (gains["all"] > gains["alone"]) is is_wider


def test_a_pool_of_everything_that_validation_speaks_against_is_not_chosen() -> None:
    teacher = ratio(190, 10)
    gains = expected_gains(contenders(teacher, teacher, ratio(189, 11, offset=20), ("all", ratio(170, 30))))
    assert gains["all"] < gains["teacher"] < gains["student"]


def test_a_pool_that_is_as_good_as_its_best_part_is_preferred_to_it() -> None:
    same = ratio(190, 10)
    gains = expected_gains(contenders(same, same, same, ("all", same)))
    assert max(gains, key=lambda name: gains[name]) == "all"


def test_there_is_one_reference() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        expected_gains([Contender("student", "heap", (), ratio(1, 1))])


def test_of_equals_the_cheapest_is_best_and_of_those_the_first() -> None:
    def candidate(name: str, expected: float, gmacs: float) -> SimpleNamespace:
        return SimpleNamespace(name=name, expected=expected, gmacs=gmacs)

    dear, cheap, same, worse = (
        candidate("dear", 0.01, 2.0),
        candidate("cheap", 0.01, 1.0),
        candidate("same", 0.01, 1.0),
        candidate("worse", 0.009, 0.1),
    )
    assert best([worse, dear, cheap, same]) is cheap
