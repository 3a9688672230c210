"""Fit what the labels give in a minute: a regression on features that are not trained.

It is the line that a training has to beat, and where its mistakes are others than those of the networks it is worth a
share in their pool.
"""

from collections.abc import Sequence
from dataclasses import replace

from nstudent.config.rules import decisions_of_probe, probe_members
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.pool_weights import fit_pool_weights
from nstudent.evaluation.scores import HEADLINE
from nstudent.lessons import Lessons
from nstudent.models.cost import total
from nstudent.models.ensemble import Ensemble
from nstudent.models.kinds import kind_for
from nstudent.models.members import Fitted
from nstudent.runs.contributions import contributions_of, in_words
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import TrainedMetrics
from nstudent.taxonomy.outputs import Outputs
from nstudent.trainer import Trainer


def run(context: Context) -> TrainedMetrics:
    """Fit every probe, save them as an ensemble, and say how good it is.

    In a round, the same probes are fitted once more, to images of the heap that they label by themselves as well.
    """
    settings, training = probe_members(context.config), context.config.teacher
    dataset = Dataset(context.inputs["data"], context.config.data)
    trainer = Trainer(context, dataset)
    fitted = _fitted(context, trainer)
    weights = _weights(fitted, dataset, trainer.outputs)
    kept = [number for number, weight in enumerate(weights) if weight]
    recipe = trainer.recipe([settings[number] for number in kept])
    if len(fitted) > 1:
        recipe = recipe.changed(weights=tuple(weights[number] for number in kept))
        shares = ", ".join(f"{weight:.0%} probe {number}" for number, weight in enumerate(weights))
        context.progress.say(f"  shares by the likelihood of held-out labels: {shares}")
    probe = trainer.calibrated(Ensemble(recipe, [fitted[number].member for number in kept], trainer.placement))
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


def _fitted(context: Context, trainer: Trainer) -> list[Fitted]:
    settings, lessons, key = probe_members(context.config), Lessons(trainer, context.config), context.key("member", 0)
    found = []
    for number, member in enumerate(settings):
        # All have one key: they are weighed by what they say of the same images.
        inputs = trainer.fit_inputs(f"probe {number}", context.config.teacher, lessons.probe(), key)
        inputs = replace(inputs, is_weighed=len(settings) > 1)
        if context.step.round:
            inputs = replace(inputs, heap=lessons.heap_of_probe(key))
        found.append(kind_for(member).fit(member, inputs))
    return found


def _weights(fitted: Sequence[Fitted], dataset: Dataset, outputs: Outputs) -> tuple[float, ...]:
    """The weights that make labels most likely to which no probe was fitted; a small one is 0."""
    said = [each.held_out for each in fitted if each.held_out is not None]
    if len(said) < len(fitted) or len(fitted) < 2:
        return (1.0,) * len(fitted)
    return fit_pool_weights([each.levels for each in said], dataset.labels[said[0].images], outputs)
