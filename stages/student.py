"""Train a noised network on the labels and the kept pseudo-labels.

Labels were made without noise, the student learns them under noise (RandAugment, dropout, stochastic depth, CutMix):
it has to give the answer of an undisturbed teacher to a disturbed image (Noisy Student, arXiv 1911.04252). With
``student.consistency`` its own answers to nearly undisturbed images take their place later in the training. With
``student.method=meta_pseudo_labels`` a teacher that learns beside it labels the heap anew at every step.
"""

from collections.abc import Iterator

from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.bootstrap import paired_difference
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.scores import HEADLINE, Difference
from nstudent.lessons import Lessons
from nstudent.models.cost import total
from nstudent.models.ensemble import Ensemble
from nstudent.models.recipe import Recipe
from nstudent.runs.lengths import student_parts
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import ChoiceMetrics, TrainedMetrics
from nstudent.trainer import Trainer
from nstudent.training.loop import Trained
from nstudent.training.trial import PlannedTraining


def run(context: Context) -> TrainedMetrics | None:
    """Train the student, hold it against the labeller on validation, and save it."""
    config = context.config.student
    dataset = Dataset(context.inputs["data"], context.config.data)
    trainer = Trainer(context, dataset)
    if said := _sees_less(context, dataset.image_size):
        context.progress.say(said)
    trained = _train(context, trainer)
    if not context.world.leads:
        return None
    student = trainer.calibrated(trainer.ensemble([config.model], [trained.network]))
    labeller = Ensemble.load(context.inputs["labeller"], trainer.placement)
    ids, batch_size = dataset.validation, context.config.evaluate.batch_size
    both = student.decoded_by(context.config.decoder), labeller
    ours, theirs = (assess(each, dataset, ids, batch_size, walk=trainer.walk).tallies for each in both)
    gap = paired_difference(ours[HEADLINE], theirs[HEADLINE])
    student.save(context.folder)
    context.progress.say(in_words(gap, ChoiceMetrics.of(context.inputs["labeller"].manifest).chosen))
    spent = total([trained.spent])
    return TrainedMetrics(
        validation=scores(ours),
        gmacs=round(student.gmacs, 6),
        image_passes=spent.image_passes,
        history=(tuple(trained.history),),
        training_gmacs=spent.training_gmacs,
        gain_over_labeller=gap,
    )


def planned(config: Config) -> Iterator[PlannedTraining]:
    """The student's network, on labelled images and those of the heap."""
    student = config.student
    yield PlannedTraining("student.model", "student", student.model, student, student_parts(student))


def _train(context: Context, trainer: Trainer) -> Trained:
    config = context.config.student
    lesson = Lessons(trainer, context.config).student(context.inputs["labels"], context.inputs["selection"])
    return trainer.train("student", config.model, config, lesson, context.key("network"))


def _sees_less(context: Context, image_size: int) -> str | None:
    """What to say of a student that is shown smaller images than a part of its labeller."""
    own = context.config.student.model.side_seen(image_size)
    labeller = max(each.side_seen(image_size) for each in Recipe.read(context.inputs["labeller"]).members)
    if own >= labeller:
        return None
    times = (labeller / own) ** 2
    return (
        f"  the student sees {own} px and its labeller {labeller}: it can learn what the labeller says, and hardly "
        f"outgrow it; student.model.image_size={labeller} takes about {times:.2g} times as long"
    )


def in_words(gap: Difference, labeller: str) -> str:
    """How a student compares with its labeller on validation, as one line."""
    if gap.low > 0:
        said = "is better than"
    elif gap.high < 0:
        said = "is worse than"
    else:
        said = "cannot be told from"
    return (
        f"  the student {said} the classifier that guessed its labels ({labeller}): {100 * gap.value:+.1f} points "
        f"[{100 * gap.low:+.1f}, {100 * gap.high:+.1f}] on validation"
    )
