"""Train what the labels alone would have given: the student's architecture, noise, steps and batch size, no heap.

The gain of the unlabelled images is stated against this network, never against a smaller or less trained one: it makes
exactly as many image passes as the student, all of them over labelled images.
"""

from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.stage import Context, Metrics
from nstudent.training.build import Lesson
from nstudent.training.spending import total
from nstudent.workbench import Workbench, unlabelled_share


def run(context: Context) -> Metrics:
    """Train and save the supervised-only baseline."""
    config = context.config.student
    dataset = Dataset(context.inputs["data"], context.config.data)
    bench = Workbench(context, dataset)
    length = bench.student_length()
    batch_size = config.batch_size + unlabelled_share(config.batch_size, config.unlabelled_ratio)
    lesson = Lesson([(bench.labelled(), batch_size)], bench.supervised(config), length)
    trained = bench.train("baseline", config.model, config, lesson, context.key("network"))
    if not context.world.leads:
        return {}
    baseline = bench.ensemble([config.model], [trained.network])
    baseline.save(context.folder)
    return {
        "validation": scores(assess(baseline, dataset, dataset.validation, context.config.evaluate.batch_size)),
        "gmacs": round(baseline.gmacs, 6),
        **total([trained.spent]).to_json(),
        "history": [trained.history],
    }
