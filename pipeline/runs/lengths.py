"""How long trainings are: passes and steps that follow from the configuration and the number of images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nstudent.config.schema import Config, FilterConfig, StudentConfig

_FEWEST_EPOCHS, _FEWEST_STEPS = 30, 400
"""Length of a student that is not given one: in a hundred steps a network from scratch learns little."""
_RATIO = 3.0
"""Pseudo-labelled images a labelled one in a student's batch, where it is not given and the heap is large enough."""


@dataclass(frozen=True)
class Expected:
    """The trainings of one step, before any of them is done."""

    trainings: int
    """Number of networks, trained one after the other or at once."""
    epochs: int
    """Epochs of each of them."""
    image_passes: int
    """Number of images that go forward and backward in each of them."""
    believed: int = 0
    """Number of images that only go forward, mostly through the averaged network, in each of them."""


def batch_parts(training: FilterConfig | StudentConfig) -> tuple[int, int]:
    """Number of labelled images in a batch, and of pseudo-labelled ones beside them, at the most."""
    ratio = _RATIO if training.unlabelled_ratio is None else training.unlabelled_ratio
    return training.batch_size, max(1, round(training.batch_size * ratio)) if ratio else 0


def mixed_batch(training: FilterConfig | StudentConfig, labelled: int, unlabelled: int) -> tuple[int, int]:
    """The same where there are so many labelled and unlabelled images.

    Where no ratio is given, an unlabelled image is shown no more often than a labelled one: its label is the worse one.
    """
    if training.unlabelled_ratio is not None:
        return batch_parts(training)
    ratio = min(_RATIO, unlabelled / max(1, labelled))
    return training.batch_size, max(1, round(training.batch_size * ratio))


def filter_length(judge: FilterConfig, labelled: int, unlabelled: int) -> tuple[int, int]:
    """Epochs of an iteration of a filter of so many labelled and unlabelled images, and steps of each: all are shown
    that there is room for in a batch."""
    parts = zip((labelled, unlabelled), mixed_batch(judge, labelled, unlabelled), strict=True)
    return judge.epochs, math.ceil(max(images / size for images, size in parts if size))


def student_length(student: StudentConfig, labelled: int, unlabelled: int) -> tuple[int, int]:
    """Epochs of a student of so many labelled and unlabelled images, and steps of each."""
    batch = mixed_batch(student, labelled, unlabelled)
    steps = math.ceil(max(1, unlabelled) / batch[1])
    if student.unlabelled_ratio is None:
        # Beside a small heap the labelled images are most of what there is to learn.
        steps = max(steps, math.ceil(labelled / batch[0]))
    # Smaller batches, and so many more of them that as many images are shown.
    fewest = _FEWEST_STEPS * sum(batch_parts(student)) / sum(batch)
    return student.epochs or max(_FEWEST_EPOCHS, math.ceil(fewest / steps)), steps


def student_passes(student: StudentConfig, labelled: int, unlabelled: int) -> int:
    """Number of images that go forward and backward in a step of a student, and in one of its baseline.

    With Meta Pseudo Labels the teacher's count, too: it sees each image of the heap in two views, the student in one.
    """
    of_labels, of_heap = mixed_batch(student, labelled, unlabelled)
    return of_labels + _views(student) * of_heap


def baseline_batch(student: StudentConfig) -> int:
    """Number of images in a batch of a student's baseline, at the most."""
    of_labels, of_heap = batch_parts(student)
    return of_labels + _views(student) * of_heap


def student_parts(student: StudentConfig) -> tuple[int, ...]:
    """Number of images of each kind in a batch of a student, at the most; of several kinds of batches in the smallest.

    With Meta Pseudo Labels it learns from the heap alone, and in the end from the labelled images alone.
    """
    parts = batch_parts(student)
    return parts if student.meta_pseudo_labels is None else (min(parts),)


def _views(student: StudentConfig) -> int:
    """How often a step learns from an image of the heap."""
    return 1 if student.meta_pseudo_labels is None else 3


def finetune_length(student: StudentConfig, labelled: int) -> tuple[int, int]:
    """Epochs in which a student of so many labelled images, and its baseline, are fine-tuned, and steps of each."""
    meta = student.meta_pseudo_labels
    return meta.finetune_epochs if meta else 0, math.ceil(max(1, labelled) / student.batch_size)


def expected(config: Config, stage: str, labelled: int, unlabelled: int) -> Expected | None:
    """The trainings of a step of a stage, as far as they are known before; ``None`` if the stage trains nothing.

    A filter that stops after fewer iterations takes less.
    """
    if stage == "teacher":
        batch = config.teacher.batch_size
        passes = config.teacher.epochs * math.ceil(labelled / batch) * batch
        return Expected(len(config.teacher.members), config.teacher.epochs, passes)
    if stage in ("baseline", "student"):
        epochs, steps = student_length(config.student, labelled, unlabelled)
        passes = epochs * steps * student_passes(config.student, labelled, unlabelled)
        more, more_steps = finetune_length(config.student, labelled)
        believed = _believed(config.student, epochs * steps, labelled, unlabelled) if stage == "student" else 0
        return Expected(1, epochs + more, passes + more * more_steps * config.student.batch_size, believed)
    if stage == "refit":
        return _trained_again(config, labelled, unlabelled)
    judge = config.filter
    if stage == "filter" and (judge.enabled or judge.labelled):
        epochs, steps = filter_length(judge, labelled, unlabelled)
        passes = epochs * steps * sum(mixed_batch(judge, labelled, unlabelled))
        return Expected(judge.iterations, judge.epochs, passes, passes)
    return None


def _trained_again(config: Config, labelled: int, unlabelled: int) -> Expected:
    """All that may be trained again, counted as one training: at most, because what was not chosen is not."""
    times = {"teacher": 1, "baseline": min(1, config.rounds), "student": config.rounds}
    epochs = passes = believed = 0
    for stage, count in times.items():
        one = expected(config, stage, labelled, unlabelled)
        if one is not None:
            epochs += count * one.trainings * one.epochs
            passes += count * one.trainings * one.image_passes
            believed += count * one.trainings * one.believed
    return Expected(1, epochs, passes, believed)


def _believed(student: StudentConfig, steps: int, labelled: int, unlabelled: int) -> int:
    """Number of images that only go forward in so many steps of a student.

    A student that goes on learning looks at the heap from some step on. With Meta Pseudo Labels the teacher looks at
    the heap, and the student twice at the labelled images.
    """
    of_labels, of_heap = mixed_batch(student, labelled, unlabelled)
    if student.meta_pseudo_labels is not None:
        return steps * (of_heap + 2 * of_labels)
    if student.consistency is None:
        return 0
    return max(0, steps - 1 - math.floor(student.consistency.begins * steps)) * of_heap
