"""Fit what the labels give in a minute: a regression on features that are not trained.

It is the line that a training has to beat, and where its mistakes are others than those of the networks it is worth a
share in their pool.
"""

from typing import Literal

from nstudent.config.rules import decisions_of_probe, probe_members
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.scores import HEADLINE
from nstudent.models.cost import total
from nstudent.probes import fitted_probes, pool_of_probes, probe_weights
from nstudent.runs.contributions import contributions_of, in_words
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import TrainedMetrics
from nstudent.trainer import Trainer


def run(context: Context) -> TrainedMetrics:
    """Fit every probe, save them as an ensemble, and say how good it is."""
    settings, training = probe_members(context.config), context.config.teacher
    dataset = Dataset(context.inputs["data"], context.config.data)
    trainer = Trainer(context, dataset)
    held_out: Literal["none", "some"] = "some" if len(settings) > 1 else "none"
    # In a round, the same probes are fitted once more, to images of the heap as well.
    fitted = fitted_probes(context, trainer, held_out, with_heap=bool(context.step.round))
    weights = probe_weights(fitted, dataset, trainer.outputs)
    if len(fitted) > 1:
        shares = ", ".join(f"{weight:.0%} probe {number}" for number, weight in enumerate(weights))
        context.progress.say(f"  shares by the likelihood of held-out labels: {shares}")
    probe = trainer.calibrated(pool_of_probes(context, trainer, fitted, weights))
    ids, batch_size = dataset.validation, context.config.evaluate.batch_size
    validation = scores(assess(probe, dataset, ids, batch_size, walk=trainer.walk).tallies)
    members = contributions_of(probe, dataset, batch_size, trainer.walk)
    for line in in_words(members):
        context.progress.say(line)
    probe.save(context.folder)
    score = validation[HEADLINE]
    what = "what a probe makes of the heap" if context.step.round else "what the labels give in a minute"
    context.progress.say(f"  {what}: {HEADLINE} {score:.1%} on validation")
    spent = total(each.spent for each in fitted)
    asked = [each.mirrored for each in fitted if each.mirrored is not None]
    mirrored = all(asked) if asked else None
    if not context.step.round and any(decisions_of_probe(each) for each in (training, context.config.student)):
        why = "" if mirrored is not False else ": held-out labels are less likely with mirror images"
        context.progress.say(f"  images are {'not ' if mirrored is False else ''}mirrored in training{why}")
    return TrainedMetrics(
        validation=validation,
        gmacs=round(probe.gmacs, 6),
        image_passes=spent.image_passes,
        history=tuple(each.history for each in fitted),
        training_gmacs=spent.training_gmacs,
        mirrored=mirrored,
        members=members,
    )
