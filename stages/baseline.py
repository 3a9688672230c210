"""Train what the labels alone would have given: the student's architecture, noise, steps and batch size, no heap.

The gain of the unlabelled images is stated against this network, never against a smaller or less trained one: it makes
exactly as many image passes as the student, all of them over labelled images.
"""

from collections.abc import Iterator

from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.lessons import Lessons
from nstudent.models.cost import total
from nstudent.runs.lengths import baseline_batch
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import TrainedMetrics
from nstudent.trainer import Trainer
from nstudent.training.trial import PlannedTraining


def run(context: Context) -> TrainedMetrics | None:
    """Train and save the supervised-only baseline."""
    config = context.config.student
    dataset = Dataset(context.inputs["data"], context.config.data)
    trainer = Trainer(context, dataset)
    lesson = Lessons(trainer, context.config).baseline()
    trained = trainer.train("baseline", config.model, config, lesson, context.key("network"))
    if not context.world.leads:
        return None
    baseline = trainer.calibrated(trainer.ensemble([config.model], [trained.network]))
    baseline.save(context.folder)
    spent = total([trained.spent])
    ids, batch_size = dataset.validation, context.config.evaluate.batch_size
    assessed = assess(baseline, dataset, ids, batch_size, walk=trainer.walk)
    return TrainedMetrics(
        validation=scores(assessed.tallies),
        gmacs=round(baseline.gmacs, 6),
        image_passes=spent.image_passes,
        history=(tuple(trained.history),),
        training_gmacs=spent.training_gmacs,
    )


def planned(config: Config) -> Iterator[PlannedTraining]:
    """The student's network, on batches that are labelled altogether."""
    yield PlannedTraining(
        "student.model", "student", config.student.model, config.student, (baseline_batch(config.student),)
    )
