"""Machine-made labels against the truth."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nstudent.evaluation.assess import Assessed
from nstudent.evaluation.label_quality import KeptQuality, detection_quality, held_out_quality, labels_without_images
from nstudent.evaluation.scores import LevelLabelling, LevelQuality
from nstudent.labels.store import ShardLabels
from nstudent.taxonomy.tree import Taxonomy

LEVELS = ("coarse", "fine")


def table(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int32)


def kept_quality(
    labels: np.ndarray, truth: np.ndarray, keep: np.ndarray, levels: tuple[str, str]
) -> dict[str, dict[str, float | None]]:
    quality = KeptQuality(levels)
    quality.add(labels, truth, keep)
    return quality.found()


def test_golden_precision_of_kept_labels() -> None:
    labels = table([0, 0], [0, 1], [1, 2], [1, 3])
    truth = table([0, 0], [0, 0], [0, 1], [1, 3])
    keep = np.array([[1, 1], [1, 1], [1, 0], [1, 0]], bool)

    found = kept_quality(labels, truth, keep, LEVELS)

    assert found["coarse"] == LevelQuality(precision=0.75, kept=4, share=1.0)
    assert found["fine"] == LevelQuality(precision=0.5, kept=2, share=0.5)


def test_a_class_where_the_truth_is_absent_is_wrong_and_an_unknown_truth_says_nothing() -> None:
    found = kept_quality(table([0, 0], [0, 0], [0, 0]), table([0, 0], [0, -1], [0, -2]), np.ones((3, 2), bool), LEVELS)

    assert found["fine"] == LevelQuality(precision=0.5, kept=3, share=1.0)


def test_without_a_known_truth_there_is_no_precision() -> None:
    found = kept_quality(table([0, 0]), table([-2, -2]), np.ones((1, 2), bool), LEVELS)

    assert found["coarse"] == LevelQuality(precision=None, kept=1, share=1.0)


def test_no_rows_have_no_quality() -> None:
    found = kept_quality(np.zeros((0, 2), np.int32), np.zeros((0, 2), np.int32), np.zeros((0, 2), bool), LEVELS)

    assert found["coarse"] == LevelQuality(precision=None, kept=0, share=0.0)


def test_parts_add_up_to_the_whole() -> None:
    random = np.random.default_rng(0)
    labels, truth = random.integers(0, 3, (50, 2)), random.integers(-2, 3, (50, 2))
    keep = random.random((50, 2)) < 0.7
    parts = KeptQuality(LEVELS)
    for rows in (slice(0, 7), slice(7, 7), slice(7, 50)):
        parts.add(labels[rows], truth[rows], keep[rows])

    assert parts.found() == kept_quality(labels, truth, keep, LEVELS)


def test_golden_detection_of_wrong_labels() -> None:
    given = table([0, 0], [0, 1], [0, 2], [1, 3], [1, 4])
    truth = table([0, 0], [0, 0], [0, 0], [1, 3], [0, 0])
    keep = np.array([[1, 0], [1, 0], [1, 1], [1, 1], [0, 0]], bool)

    found = detection_quality(given, truth, keep, LEVELS)

    # Fine: rows 1, 2 and 4 are wrong, rows 0, 1 and 4 were dropped.
    assert found["fine"].wrong == 3
    assert found["fine"].dropped == 3
    assert found["fine"].precision == pytest.approx(2 / 3)
    assert found["fine"].recall == pytest.approx(2 / 3)
    assert found["fine"].right_among_kept == pytest.approx(1 / 2)
    assert (found["coarse"].wrong, found["coarse"].dropped) == (1, 1)
    assert found["coarse"].precision == found["coarse"].recall == found["coarse"].right_among_kept == 1


def test_levels_without_a_given_class_or_a_known_truth_are_not_judged() -> None:
    given, truth = table([0, -1], [0, -2], [0, 5]), table([0, 0], [0, 0], [-2, -2])

    found = detection_quality(given, truth, np.zeros((3, 2), bool), LEVELS)

    assert (found["fine"].wrong, found["fine"].dropped) == (0, 0)
    assert found["fine"].precision is None
    assert found["fine"].recall is None
    assert found["coarse"].dropped == 2


class Heap:
    """Labels of a heap in two shards, and which of them are taught."""

    def __init__(self, paths: np.ndarray, confidence: np.ndarray, keep: np.ndarray, copies: list[int]) -> None:
        self.labels = SimpleNamespace(parts=self._parts)
        self.keep = keep
        self.copies = np.array(copies)
        self._paths, self._confidence = paths, confidence

    def _parts(self) -> list[ShardLabels]:
        return [
            ShardLabels(rows, np.arange(rows.start, rows.stop), self._paths[rows], self._confidence[rows])
            for rows in (slice(0, 1), slice(1, len(self._paths)))
        ]

    def __len__(self) -> int:
        return len(self._paths)


def a_heap() -> Any:
    paths = table([0, 0], [0, 1], [1, 2], [1, -1])
    confidence = np.array([[0.9, 0.8], [0.9, 0.4], [0.7, 0.6], [0.5, 0.0]], np.float32)
    keep = np.array([[1, 1], [1, 0], [1, 1], [1, 0]], bool)
    return Heap(paths, confidence, keep, [2, 1, 0, 1])


def held_out(threshold: Any) -> dict[str, LevelLabelling]:
    said = Assessed(
        table([0, 0], [0, 1], [1, 2], [1, -1]),
        np.array([[0.9, 0.9], [0.8, 0.5], [0.8, 0.7], [0.7, 0.0]], np.float32),
        {},
    )
    truth = table([0, 0], [0, 0], [0, 0], [1, -2])
    return held_out_quality(said, truth, a_heap(), threshold, LEVELS)


def test_the_labels_of_a_heap_are_as_good_as_those_that_held_out_images_would_keep() -> None:
    found = held_out(0.6)
    assert found["coarse"].precision == pytest.approx(3 / 4)
    assert found["coarse"].judged == 4
    assert found["fine"].precision == pytest.approx(1 / 2), "of the labels above the threshold"
    assert found["fine"].judged == 2
    assert (found["coarse"].share, found["fine"].share) == (1.0, 0.5)


def test_a_lower_threshold_keeps_more_labels_but_none_where_there_is_none() -> None:
    assert held_out(0.0)["fine"].judged == 3
    assert held_out((0.0, 1.0))["fine"] == LevelLabelling(None, 0, 0.5, pytest.approx(0.6), pytest.approx(0.7))


def test_confidence_is_the_mean_over_the_classes_that_are_named_kept_or_not() -> None:
    found = held_out(0.6)
    assert found["coarse"].confidence == pytest.approx(0.75)
    assert found["coarse"].validation_confidence == pytest.approx(0.8)
    assert found["fine"].confidence == pytest.approx(0.6)
    assert found["fine"].validation_confidence == pytest.approx(0.7)


TREE = Taxonomy.from_tree({"A": ["a", "b"], "B": ["c"]}, LEVELS)


def test_labels_that_people_gave_and_the_heap_is_not_taught_are_named() -> None:
    given = table([0, 0], [0, 0], [0, 1], [1, 2], [1, -1], [0, -2])
    # The fine label of the second image is not kept, and the third image is shown no time.
    assert labels_without_images(given, a_heap(), TREE) == ("A/b", "B/c")


def test_a_label_that_ends_early_is_taught_by_a_path_that_ends_there() -> None:
    assert labels_without_images(table([1, -1]), a_heap(), TREE) == ()
    assert labels_without_images(table([0, -1]), a_heap(), TREE) == ("A",)
    assert labels_without_images(table([0, -2]), a_heap(), TREE) == (), "nobody said where it ends"
