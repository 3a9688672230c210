"""Train the first labeller on the given labels alone: an ensemble whose members are trained apart.

The members differ in their random start, the order of their images and their noise, and where the configuration says
so in their architecture. Their errors differ with it, and averaging cancels part of them.
"""

import math

from nstudent.data.dataset import Dataset
from nstudent.errors import TrainingError
from nstudent.evaluation.assess import HEADLINE, assess, best_constant
from nstudent.evaluation.bootstrap import paired_difference
from nstudent.evaluation.metrics import scores
from nstudent.models.cost import check_cost
from nstudent.models.ensemble import Ensemble
from nstudent.stage import Context, Metrics
from nstudent.training.fit import Length
from nstudent.workbench import Workbench

_SURE = 0.95
"""Probability, by paired bootstrap, with which a teacher has to beat the best constant answer."""


def run(context: Context) -> Metrics:
    """Train every member, check that the ensemble has learnt something, and save it."""
    config = context.config.teacher
    dataset = Dataset(context.inputs["data"], context.config.data)
    bench = Workbench(context, dataset)
    skeletons = [
        bench.build(model, config, context.key("member", number)) for number, model in enumerate(config.members)
    ]
    cost = check_cost(skeletons, dataset.image_size, config.max_gmacs)
    objective = bench.supervised(config)
    parts = [(bench.labelled(), config.batch_size)]
    length = Length(config.epochs, math.ceil(len(dataset.labelled) / config.batch_size))
    trained = [
        bench.train(f"member {number}", model, config, parts, objective, length, context.key("member", number))
        for number, model in enumerate(config.members)
    ]
    if not context.world.leads:
        return {}
    teacher = Ensemble(bench.recipe(config.members), [member.network for member in trained], bench.placement)
    validation = _better_than_chance(context, dataset, teacher)
    teacher.save(context.folder)
    return {
        "validation": validation,
        "gmacs": round(cost, 6),
        "image_passes": length.steps * config.batch_size * len(trained),
        "history": [member.history for member in trained],
        "promoted": True,
    }


def _better_than_chance(context: Context, dataset: Dataset, teacher: Ensemble) -> dict[str, float | None]:
    """Scores on validation.

    Raises:
        TrainingError: saying one and the same label of every image does as well, or nearly so.
    """
    ids, evaluate = dataset.validation, context.config.evaluate
    made = assess(teacher, dataset, ids, evaluate.batch_size)
    chance = best_constant(dataset.labels[ids], dataset.taxonomy)
    ahead = paired_difference(made[HEADLINE], chance[HEADLINE], evaluate.resamples, evaluate.confidence)
    validation = scores(made)
    if ahead.probability <= _SURE:
        raise TrainingError(
            f"the teacher is no better than chance: {HEADLINE} {validation[HEADLINE]:.3f} on validation, saying the "
            f"same label of every image reaches {scores(chance)[HEADLINE]:.3f}: train longer (teacher.epochs), lower "
            "teacher.learning_rate, or check the labels"
        )
    return validation
