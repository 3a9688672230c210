"""Average the weights of the teacher's members, as far as that helps: one network that costs what one member does.

It is a classifier of its own and a candidate of every choice, beside the teacher whose members it is made of.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from nstudent.config.members import ModelConfig
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.scores import HEADLINE
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import told
from nstudent.models.network_member import NetworkMember
from nstudent.models.soup import greedy_soup, plain_batches, soup_of
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import TrainedMetrics
from nstudent.trainer import Trainer
from torch import nn


def run(context: Context) -> TrainedMetrics:
    """Choose the ingredients on validation, save the soup calibrated, and say what is in it."""
    dataset = Dataset(context.inputs["data"], context.config.data)
    trainer = Trainer(context, dataset)
    tasting = _Tasting(context, trainer)
    taken, score = greedy_soup(tasting.scores, tasting.score)
    soup = trainer.calibrated(tasting.soup(taken))
    batch_size = context.config.evaluate.batch_size
    validation = scores(assess(soup, dataset, dataset.validation, batch_size, walk=trainer.walk).tallies)
    soup.save(context.folder)
    alone = ", ".join(f"member {number} {each:.1%}" for number, each in enumerate(tasting.scores))
    context.progress.say(
        f"  the soup of {_members(taken)}: {HEADLINE} {score:.1%} on validation, uncalibrated; alone: {alone}"
    )
    return TrainedMetrics(
        validation=validation,
        gmacs=round(soup.gmacs, 6),
        image_passes=0,
        history=(),
        training_gmacs=round(tasting.images_passed * soup.gmacs, 3),
        ingredients=tuple(sorted(taken)),
    )


class _Tasting:
    """The members of the teacher, the soups of some of them, and how each scores on validation."""

    def __init__(self, context: Context, trainer: Trainer) -> None:
        self._context = context
        self._trainer = trainer
        teacher = Ensemble.load(context.inputs["teacher"], trainer.placement)
        self._settings = [each for each in teacher.recipe.members if isinstance(each, ModelConfig)]
        self._networks = list(_networks(teacher))
        dataset, batch_size = trainer.dataset, context.config.teacher.batch_size
        self._batches = plain_batches(dataset.pixels, dataset.labelled, batch_size, trainer.placement)
        self.images_passed = 0
        """Number of images on which statistics were estimated, each as often as it was looked at."""
        self.scores = [self.score((number,)) for number in range(len(self._networks))]
        """Headline score of each member by itself."""

    def soup(self, numbers: Sequence[int]) -> Ensemble:
        """The soup of some members, by their numbers, as an ensemble of one."""
        trainer = self._trainer
        if len(numbers) > 1:
            self.images_passed += len(trainer.dataset.labelled)
        networks = [self._networks[number] for number in sorted(numbers)]
        return trainer.ensemble(self._settings[:1], [soup_of(networks, self._batches, trainer.placement)])

    def score(self, numbers: tuple[int, ...]) -> float:
        """Headline score of a soup, before it is calibrated."""
        trainer, batch_size = self._trainer, self._context.config.evaluate.batch_size
        dataset = trainer.dataset
        with self._context.progress.task(f"taste {_members(numbers)}", len(dataset.validation), "images") as task:
            walk = told(trainer.walk, task)
            found = assess(self.soup(numbers), dataset, dataset.validation, batch_size, walk=walk)
        score = scores(found.tallies)[HEADLINE]
        assert score is not None, "the data stage refuses validation images without a label"
        return score


def _networks(teacher: Ensemble) -> Iterator[nn.Module]:
    for member in teacher.members:
        assert isinstance(member, NetworkMember), "the configuration refuses other members beside a soup"
        yield member.network


def _members(numbers: Sequence[int]) -> str:
    each = [str(number) for number in np.sort(numbers)]
    return f"member {each[0]}" if len(each) == 1 else f"members {', '.join(each)}"
