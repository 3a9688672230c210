"""Train the first classifier on the given labels alone: an ensemble whose members are trained apart.

The members differ in their random start, the order of their images and their noise, and where the configuration says
so in their architecture, or in kind. Their errors differ with it, and averaging cancels part of them.
"""

from collections.abc import Iterator, Sequence

from nstudent.config.members import MemberConfig
from nstudent.config.schema import Config, ModelConfig, TeacherConfig
from nstudent.data.curation.given_labels import counted_labels
from nstudent.data.dataset import Dataset
from nstudent.errors import RefusedError
from nstudent.evaluation.assess import assess, best_constant
from nstudent.evaluation.chance import skill_of
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.out_of_fold import OutOfFold, predict_out_of_fold
from nstudent.evaluation.scores import HEADLINE
from nstudent.lessons import Lessons
from nstudent.models.cost import check_cost, total
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import Walk
from nstudent.models.kinds import kind_for
from nstudent.models.members import FitInputs, Fitted
from nstudent.runs.contributions import contributions_of, in_words
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import TrainedMetrics
from nstudent.trainer import Trainer
from nstudent.training.trial import PlannedTraining


def run(context: Context) -> TrainedMetrics | None:
    """Fit every member, check that the ensemble has learnt something, and save it."""
    config = context.config.teacher
    dataset = Dataset(context.inputs["data"], context.config.data)
    trainer = Trainer(context, dataset)
    inputs = [_inputs(context, trainer, number) for number in range(len(config.members))]
    cost = _checked_cost(config, inputs, dataset.image_size)
    trainer.check_final_cost(teacher=cost)
    turns = {number: _fit(config.members[number], inputs[number]) for number in context.turns(len(inputs))}
    if not context.world.leads:
        return None
    fitted = [turns[number] for number in range(len(config.members))]
    members = [each.member for each in fitted]
    teacher = Ensemble(trainer.recipe(config.members), members, trainer.placement)
    teacher = trainer.calibrated(
        teacher, _out_of_fold(context, dataset, teacher, trainer.walk) if config.cross_fit else None
    )
    validation = _better_than_chance(context, dataset, teacher, trainer.walk)
    adds = contributions_of(teacher, dataset, context.config.evaluate.batch_size, trainer.walk)
    for line in in_words(adds):
        context.progress.say(line)
    teacher.save(context.folder)
    spent = total(each.spent for each in fitted)
    return TrainedMetrics(
        validation=validation,
        gmacs=round(cost, 6),
        image_passes=spent.image_passes,
        history=tuple(each.history for each in fitted),
        training_gmacs=spent.training_gmacs,
        members=adds,
    )


def planned(config: Config) -> Iterator[PlannedTraining]:
    """The networks among the members, as they will be trained."""
    teacher = config.teacher
    for number, member in enumerate(teacher.members):
        if isinstance(member, ModelConfig):
            yield PlannedTraining(f"teacher.members.{number}", "teacher", member, teacher, (teacher.batch_size,))


def train_ahead(context: Context, number: int) -> None:
    """Train one member, in another process than the one that makes the step, and leave its last checkpoint there.

    A member of a kind that leaves nothing to go on from is fitted in the process that makes the step.
    """
    settings = context.config.teacher.members[number]
    if kind_for(settings).resumes:
        trainer = Trainer(context, Dataset(context.inputs["data"], context.config.data))
        _fit(settings, _inputs(context, trainer, number))


def _checked_cost(config: TeacherConfig, inputs: Sequence[FitInputs], image_size: int) -> float:
    """GMACs of the whole ensemble for one image, held under the limit before anything is fitted."""
    costs = [kind_for(settings).cost(settings, own) for settings, own in zip(config.members, inputs, strict=True)]
    return check_cost(lambda side: sum(cost(side) for cost in costs), image_size, config.max_gmacs)


def _fit(settings: MemberConfig, inputs: FitInputs) -> Fitted:
    return kind_for(settings).fit(settings, inputs)


def _inputs(context: Context, trainer: Trainer, number: int) -> FitInputs:
    config = context.config.teacher
    lesson = Lessons(trainer, context.config).teacher(number)
    return trainer.fit_inputs(f"member {number}", config, lesson, context.key("member", number))


def _out_of_fold(context: Context, dataset: Dataset, teacher: Ensemble, walk: Walk) -> OutOfFold:
    """What each member says of the fold that it was trained without, which is kept with the classifier."""
    said = predict_out_of_fold(teacher, dataset, context.config.evaluate.batch_size, walk)
    context.reserve(said.num_bytes)
    said.save(context.folder)
    return said


def _better_than_chance(context: Context, dataset: Dataset, teacher: Ensemble, walk: Walk) -> dict[str, float | None]:
    """Scores on validation.

    Raises:
        RefusedError: Saying one and the same label of every image does as well, or nearly so.
    """
    ids, evaluate = dataset.validation, context.config.evaluate
    truth = dataset.labels[ids]
    made = assess(teacher, dataset, ids, evaluate.batch_size, walk=walk).tallies
    chance = best_constant(truth, dataset.taxonomy)
    skill = skill_of(made[HEADLINE], chance[HEADLINE])
    validation = scores(made)
    reached = (
        f"{HEADLINE} {validation[HEADLINE]:.1%} on {len(ids):,} validation images, where the same label for all "
        f"reaches {scores(chance)[HEADLINE]:.1%}"
    )
    if skill == "none":
        raise RefusedError(
            f"the teacher is no better than chance, as far as these images tell: {reached}: train longer "
            "(teacher.epochs), lower teacher.learning_rate, raise data.validation, or check the labels"
        )
    if skill == "too few images":
        context.progress.say(
            f"  too few validation images to tell whether the teacher is better than chance ({reached}): "
            f"{counted_labels(truth, dataset.taxonomy)}. It goes on; a larger data.validation, or more labelled "
            "images of the rare classes, would tell"
        )
    return validation
