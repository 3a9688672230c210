"""What the networks of a run are to learn, from which images, and for how long.

The step that trains a network and the one that trains it again on more labels (``stages.refit``) ask here, so that
nothing but the images differs between the two.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from nstudent.config.schema import Config, MetaConfig, TrainingConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Ids
from nstudent.labels.heap_labels import HeapLabels
from nstudent.labels.selection import load_given_keep
from nstudent.randomness import Key, generator
from nstudent.runs.lengths import finetune_length, student_passes
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.tree import UNKNOWN
from nstudent.trainer import Trainer
from nstudent.training.build import Continuation, Lesson
from nstudent.training.loop import Length
from nstudent.training.meta_learner import MetaPseudoLabels
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
        return replace(lesson, first_weights=alike)

    def baseline(self) -> Lesson:
        """The lesson of the labels-only baseline: the student's, with labelled images in place of the heap's."""
        student, dataset = self._config.student, self._dataset
        batch_size = student_passes(student, len(dataset.labelled), len(dataset.unlabelled))
        lesson = self._of_labels(student, batch_size, self._trainer.student_length(), self.ids)
        return replace(lesson, then=self._fine_tuning())

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
        going_on, meta = config.consistency, config.meta_pseudo_labels
        # An image whose label is not sure enough has nothing to teach but what will be believed of it later.
        bare_too = going_on is not None or meta is not None
        copies = np.maximum(heap.copies, ~heap.keep.any(axis=1)) if bare_too else heap.copies
        both = trainer.labelled(given, ids), Examples(heap.images, targets, copies)
        parts = list(zip(both, trainer.mixed_batch(config), strict=True))
        objective = trainer.supervised(config, config.unlabelled_weight, heap.level_shares(copies), ids)
        lesson = Lesson(parts, objective, trainer.student_length(), learns_validation=self._with_validation)
        if meta is not None:
            return self._with_a_teacher(lesson, meta)
        if going_on is None:
            return lesson
        views = {WEAK: weak_noise(config.noise, going_on.weak)}
        return replace(lesson, views=views, revision=trainer.own_beliefs(going_on, given))

    def _with_a_teacher(self, lesson: Lesson, meta: MetaConfig) -> Lesson:
        """The lesson of a student whose teacher learns beside it, and that is fine-tuned afterwards."""
        config, trainer = self._config.student, self._trainer
        method = MetaPseudoLabels(
            config=meta,
            outputs=trainer.outputs,
            # The weight is that of the noisy student's pseudo-labels: here each network has a loss of its own.
            supervised=trainer.supervised(config, ids=self.ids),
            num_labelled=lesson.parts[0][1],
            build=lambda key: trainer.build(config.model, config, key),
        )
        views = {WEAK: weak_noise(config.noise, meta.weak)}
        return replace(lesson, views=views, method=method, then=self._fine_tuning())

    def _fine_tuning(self) -> Continuation | None:
        """What a student of Meta Pseudo Labels, and its baseline, go on with: the labelled images, hardly noised."""
        config = self._config.student
        epochs, steps = finetune_length(config, len(self._dataset.labelled))
        meta = config.meta_pseudo_labels
        if meta is None or not epochs:
            return None
        still = {
            "learning_rate": meta.finetune_rate * config.learning_rate,
            "noise": weak_noise(config.noise, 1.0),
            "schedule": "cosine",
            "warmup_epochs": 0.0,
            "progressive_stages": 1,
            # It goes on from the end of a training, and not with the coarse levels once more.
            "level_schedule": "constant",
            "level_weights": tuple(self._trainer.supervised(config, ids=self.ids).weights_at(1.0)),
        }
        training = config.model_copy(update=still)
        lesson = self._of_labels(training, training.batch_size, Length(epochs, steps), self.ids)
        return Continuation("fine-tuning", lesson, training)

    def _of_labels(self, training: TrainingConfig, batch_size: int, length: Length, ids: Ids) -> Lesson:
        trainer = self._trainer
        parts = [(trainer.labelled(ids=ids), batch_size)]
        objective = trainer.supervised(training, ids=ids)
        return Lesson(parts, objective, length, learns_validation=self._with_validation)
