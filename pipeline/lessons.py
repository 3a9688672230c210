"""What the networks of a run are to learn, from which images, and for how long.

The step that trains a network and the one that trains it again on more labels (``stages.refit``) ask here, so that
nothing but the images differs between the two.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from nstudent.config.schema import Config, TrainingConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Ids
from nstudent.labels.heap_labels import HeapLabels
from nstudent.labels.selection import load_given_keep
from nstudent.randomness import Key, generator
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.tree import UNKNOWN
from nstudent.trainer import Trainer
from nstudent.training.build import Lesson
from nstudent.training.loop import Length
from nstudent.training.own_beliefs import WEAK, weak_noise


class Lessons:
    """The lessons of a run's trainings.

    Lengths and batches are those of the labelled images in either case: with the validation images, as many steps of as
    many images are taken.
    """

    def __init__(self, trainer: Trainer, config: Config, *, with_validation: bool = False) -> None:
        """``with_validation``: whether the validation images are learnt from, too, each with its label."""
        self._trainer = trainer
        self._config = config
        self._dataset = trainer.dataset
        self._with_validation = with_validation

    @property
    def ids(self) -> Ids:
        """Ids of the images whose given labels are learnt from, (images,); those of validation come last."""
        dataset = self._dataset
        return np.concatenate([dataset.labelled, dataset.validation]) if self._with_validation else dataset.labelled

    def probe(self) -> Lesson:
        """The lesson of a probe; its length is that of networks that no probe asks for."""
        training = self._config.teacher
        return self._of_labels(training, training.batch_size, Length(1, 1), self.ids)

    def heap_of_probe(self, key: Key) -> Ids:
        """Ids of the unlabelled images that a probe labels by itself and learns from, ascending; drawn with ``key``."""
        heap, number = self._dataset.unlabelled, self._config.probe.heap
        if number >= len(heap):
            return heap
        return np.sort(generator(*key, "heap").choice(heap, number, replace=False))

    def teacher(self, number: int) -> Lesson:
        """The lesson of one member of the teacher.

        A cross-fitted member learns from the other members' folds, for so many steps as these are worth, and with the
        validation images from all folds: nothing is asked of it out of fold then.
        """
        config, own = self._config.teacher, self._dataset.labelled
        if config.cross_fit:
            own = own[self._dataset.folds() != number]
        length = Length(config.epochs, math.ceil(len(own) / config.batch_size))
        lesson = self._of_labels(config, config.batch_size, length, self.ids if self._with_validation else own)
        # Those that are to be averaged begin with the same weights, also where no pretrained ones are: in the head.
        alike = (self._config.seed, "teacher", 0, "member", 0) if config.soup != "none" else None
        return replace(lesson, start=alike)

    def baseline(self) -> Lesson:
        """The lesson of the labels-only baseline: the student's, with labelled images in place of the heap's."""
        trainer = self._trainer
        return self._of_labels(self._config.student, sum(trainer.student_batch()), trainer.student_length(), self.ids)

    def student(self, labels: Artifact, selection: Artifact) -> Lesson:
        """The lesson of a student.

        Args:
            labels: Labels of the heap.
            selection: Which of them, and of the given labels, are taught.
        """
        config, trainer, dataset = self._config.student, self._trainer, self._dataset
        heap = HeapLabels.open(labels, selection)
        targets = heap.targets(self._config.pseudolabel.targets, trainer.outputs)
        ids = self.ids
        # The filter has judged the labelled images alone; they come first.
        keep = np.ones((len(ids), dataset.taxonomy.num_levels), dtype=bool)
        keep[: len(dataset.labelled)] = load_given_keep(selection)
        given = np.where(keep, dataset.labels[ids], UNKNOWN)
        going_on = config.consistency
        # An image whose label is not sure enough has nothing to teach but what the student will believe of it.
        copies = heap.copies if going_on is None else np.maximum(heap.copies, ~heap.keep.any(axis=1))
        both = trainer.labelled(given, ids), Examples(heap.images, targets, copies)
        parts = list(zip(both, trainer.student_batch(), strict=True))
        objective = trainer.supervised(config, config.unlabelled_weight, heap.level_shares(copies), ids)
        lesson = Lesson(parts, objective, trainer.student_length(), learns_validation=self._with_validation)
        if going_on is None:
            return lesson
        views = {WEAK: weak_noise(config.noise, going_on.weak)}
        return replace(lesson, views=views, revision=trainer.own_beliefs(going_on, given))

    def _of_labels(self, training: TrainingConfig, batch_size: int, length: Length, ids: Ids) -> Lesson:
        trainer = self._trainer
        parts = [(trainer.labelled(ids=ids), batch_size)]
        objective = trainer.supervised(training, ids=ids)
        return Lesson(parts, objective, length, learns_validation=self._with_validation)
