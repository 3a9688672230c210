"""Fit what the labels give in a minute: a regression on features that are not trained.

It is the line that a training has to beat, and where its mistakes are others than those of the networks it is worth a
share in their pool.
"""

from nstudent.config.rules import decisions_of_probe, probe_members
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.scores import HEADLINE
from nstudent.lessons import Lessons
from nstudent.models.cost import total
from nstudent.models.ensemble import Ensemble
from nstudent.models.kinds import kind_for
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import TrainedMetrics
from nstudent.trainer import Trainer


def run(context: Context) -> TrainedMetrics:
    """Fit every probe, save them as an ensemble, and say how good it is."""
    settings, training = probe_members(context.config), context.config.teacher
    dataset = Dataset(context.inputs["data"], context.config.data)
    trainer = Trainer(context, dataset)
    fitted = []
    for number, member in enumerate(settings):
        lesson = Lessons(trainer, context.config).probe()
        inputs = trainer.fit_inputs(f"probe {number}", training, lesson, context.key("member", number))
        fitted.append(kind_for(member).fit(member, inputs))
    members = [each.member for each in fitted]
    probe = trainer.calibrated(Ensemble(trainer.recipe(settings), members, trainer.placement))
    ids, batch_size = dataset.validation, context.config.evaluate.batch_size
    validation = scores(assess(probe, dataset, ids, batch_size, walk=trainer.walk).tallies)
    probe.save(context.folder)
    score = validation[HEADLINE]
    context.progress.say(f"  what the labels give in a minute: {HEADLINE} {score:.1%} on validation")
    spent = total(each.spent for each in fitted)
    asked = [each.mirrored for each in fitted if each.mirrored is not None]
    mirrored = all(asked) if asked else None
    if any(decisions_of_probe(each) for each in (training, context.config.student)):
        why = "" if mirrored is not False else ": held-out labels are less likely with mirror images"
        context.progress.say(f"  images are {'not ' if mirrored is False else ''}mirrored in training{why}")
    return TrainedMetrics(
        validation=validation,
        gmacs=round(probe.gmacs, 6),
        image_passes=spent.image_passes,
        history=tuple(each.history for each in fitted),
        training_gmacs=spent.training_gmacs,
        mirrored=mirrored,
    )
