"""The probes of a run, fitted to the labels: by the step that keeps them, and by the filter, which asks each of them
about labels that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from nstudent.config.rules import probe_members
from nstudent.data.dataset import Dataset, Ids
from nstudent.evaluation.pool_weights import fit_pool_weights
from nstudent.lessons import Lessons
from nstudent.models.cost import Spent, total
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.models.inference import predict
from nstudent.models.kinds import kind_for
from nstudent.models.members import Fitted
from nstudent.runs.stage import Context
from nstudent.taxonomy.outputs import Outputs
from nstudent.trainer import Trainer


def fitted_probes(
    context: Context, trainer: Trainer, held_out: Literal["none", "some", "all"], *, with_heap: bool = False
) -> list[Fitted]:
    """Fit every probe of the run.

    Args:
        context: The step.
        trainer: That of the step.
        held_out: Of which labelled images each is asked what it says without being fitted to them.
        with_heap: Whether each also learns from images of the heap, which it labels by itself.

    Raises:
        ConfigError: A backbone cannot be built, or does not fit the images.
    """
    lessons, key = Lessons(trainer, context.config), context.key("member", 0)
    found = []
    for number, member in enumerate(probe_members(context.config)):
        # All have one key: they are weighed by what they say of the same images.
        inputs = trainer.fit_inputs(f"probe {number}", context.config.teacher, lessons.probe(), key)
        inputs = replace(inputs, held_out=held_out)
        if with_heap:
            inputs = replace(inputs, heap=lessons.heap_of_probe(key))
        found.append(kind_for(member).fit(member, inputs))
    return found


def probe_weights(fitted: Sequence[Fitted], dataset: Dataset, outputs: Outputs) -> tuple[float, ...]:
    """The weights that make labels most likely to which no probe was fitted; a small one is 0."""
    said = [each.held_out for each in fitted if each.held_out is not None]
    if len(said) < len(fitted) or len(fitted) < 2:
        return (1.0,) * len(fitted)
    return fit_pool_weights([each.levels for each in said], dataset.labels[said[0].images], outputs)


def pool_of_probes(context: Context, trainer: Trainer, fitted: Sequence[Fitted], weights: Sequence[float]) -> Ensemble:
    """The probes that weigh something, as an ensemble that is not calibrated.

    Args:
        context: The step.
        trainer: That of the step.
        fitted: All probes of the run.
        weights: Their weights.
    """
    settings = probe_members(context.config)
    kept = [number for number, weight in enumerate(weights) if weight]
    recipe = trainer.recipe([settings[number] for number in kept])
    if len(fitted) > 1:
        recipe = recipe.changed(weights=tuple(weights[number] for number in kept))
    return Ensemble(recipe, [fitted[number].member for number in kept], trainer.placement)


@dataclass(frozen=True, eq=False)
class OutOfFoldProbes:
    """What the probes of a run say of labelled images that were not fitted to these images' labels."""

    labelled: Probabilities
    """Distributions of the labelled images, in the order of the data set; a row of zeros where nothing is said."""
    others: Probabilities
    """Distributions of the images that were asked about beside them."""
    spent: Spent
    """What the features have cost."""

    @classmethod
    def of(cls, context: Context, trainer: Trainer, others: Ids) -> OutOfFoldProbes | None:
        """Fit the probes of the run, and each to all parts of the labelled images but one; ``None``: it has none.

        Args:
            context: The step.
            trainer: That of the step.
            others: Ids of images that are not labelled training images, (others,).
        """
        fitted = fitted_probes(context, trainer, "all")
        if not fitted or any(each.held_out is None for each in fitted):
            return None
        dataset, outputs = trainer.dataset, trainer.outputs
        weights = probe_weights(fitted, dataset, outputs)
        probes = pool_of_probes(context, trainer, fitted, weights)
        said = predict(probes, dataset.pixels, others, context.config.pseudolabel.batch_size, walk=trainer.walk)
        labelled = tuple(np.zeros((len(dataset.labelled), size), dtype=np.float32) for size in outputs.sizes)
        for each, weight in zip(fitted, weights, strict=True):
            if each.held_out is not None:
                rows = np.searchsorted(dataset.labelled, each.held_out.images)
                for level, levels in zip(labelled, each.held_out.levels, strict=True):
                    level[rows] += np.float32(weight) * levels
        return cls(labelled, said, total(each.spent for each in fitted))
