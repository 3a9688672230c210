import numpy as np
import pytest
from nstudent.data.curation.given_labels import counted_labels
from nstudent.evaluation.bootstrap import paired_difference
from nstudent.evaluation.chance import Skill, skill_of
from nstudent.evaluation.metrics import Ratio
from nstudent.taxonomy.tree import UNKNOWN, Taxonomy


def _right(*right: int) -> Ratio:
    return np.stack([np.array(right), np.ones(len(right))], axis=1).astype(np.float64)


def _constant(common: int, rare: int) -> Ratio:
    return _right(*[1] * common, *[0] * rare)


def _made(common: int, rare: int, found: int, lost: int = 0) -> Ratio:
    """A classifier that finds some of the rare images, and gets some of the common ones wrong."""
    return _right(*[0] * lost, *[1] * (common - lost), *[1] * found, *[0] * (rare - found))


@pytest.mark.parametrize(
    ("common", "rare", "found", "lost", "skill"),
    [
        (15, 1, 1, 0, "too few images"),  # perfect, and cannot show it
        (18, 2, 2, 0, "too few images"),
        (15, 1, 0, 0, "too few images"),  # the constant answer itself
        (15, 1, 1, 8, "none"),  # surely worse
        (17, 3, 3, 0, "shown"),
        (60, 8, 2, 0, "too few images"),
        (60, 40, 40, 0, "shown"),
        (60, 40, 0, 0, "none"),
        (60, 40, 9, 9, "none"),
        (60, 40, 12, 2, "shown"),
        (20, 0, 0, 0, "too few images"),  # every image has one label
        (2, 2, 2, 0, "shown"),
        (3, 1, 1, 0, "too few images"),
    ],
)
def test_no_skill_is_told_from_too_few_images_to_show_any(
    common: int, rare: int, found: int, lost: int, skill: Skill
) -> None:
    assert skill_of(_made(common, rare, found, lost), _constant(common, rare)) == skill


@pytest.mark.slow
def test_a_perfect_classifier_is_never_refused() -> None:
    for rare in range(1, 60):
        for common in (rare, 2 * rare, 100):
            assert skill_of(_made(common, rare, rare), _constant(common, rare)) != "none"


def test_one_defect_of_sixteen_is_too_little_for_certainty() -> None:
    assert paired_difference(_made(15, 1, 1), _constant(15, 1)).probability == pytest.approx(0.82, abs=0.02)


def test_labels_are_counted_the_rarest_first() -> None:
    levels = ("coarse", "fine")
    tree = Taxonomy.from_labels([("a", f"a{number}") for number in range(6)] + [("b", "b0")], levels)
    truth = np.array([[0, number] for number in range(6)] + [[0, 0], [1, 6], [1, UNKNOWN]], dtype=np.int32)
    said = counted_labels(truth, tree)
    assert said == "1 of a/a1, 1 of a/a2, 1 of a/a3, 1 of a/a4, 1 of a/a5 and 3 more classes"
    assert counted_labels(truth[-2:], tree) == "1 of b, 1 of b/b0"
