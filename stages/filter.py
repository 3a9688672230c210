"""Drop labels that a self-ensemble and the labeller together doubt, level by level (SELF, arXiv 1910.01842).

A network is trained on the labels as they are; while it trains, its averaged weights predict every image, and a label
stays where the average of these predictions and what the labeller says, weighed by how right both are on validation,
make it probable enough. The next iteration trains on what stayed, judges all labels anew (a dropped one can come back),
and so on while validation improves. Dropped labels still feed the consistency loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nstudent.config.schema import Config
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset
from nstudent.evaluation.calibration import images_to_fit
from nstudent.labels.evidence import Heard, Weights
from nstudent.labels.heap_labels import HeapLabels
from nstudent.labels.selection import Selection, save_given_keep, select
from nstudent.labels.self_ensemble import (
    Keep,
    RunningAverage,
    check_memory,
    standing_given_labels,
    standing_pseudo_labels,
)
from nstudent.labels.targets import GivenTargets
from nstudent.models.cost import Spent, total
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.models.inference import predict
from nstudent.probes import OutOfFoldProbes
from nstudent.runs.filtered import in_words, nothing_to_learn
from nstudent.runs.lengths import batch_parts
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import EvidenceWeights, FilterIteration, FilterMetrics, LabelMetrics
from nstudent.taxonomy.tree import UNKNOWN, LabelArray
from nstudent.trainer import Trainer
from nstudent.training.build import Lesson
from nstudent.training.loop import Trained
from nstudent.training.objective import CLEAN, SelfEnsembling
from nstudent.training.trial import PlannedTraining


@dataclass(frozen=True)
class _Keep:
    """Which labels stand: bool (rows, levels), of those that people gave and of those of the heap."""

    given: Keep
    pseudo: Keep


@dataclass(frozen=True)
class _Iteration:
    """What one training of the filter has found."""

    made: FilterIteration
    stands: _Keep
    weights: tuple[Weights, ...]
    """How much labeller and filter network count about the heap, by level."""
    given_weights: tuple[Weights, ...]
    """How much probes and filter network count about given labels, by level."""
    given_error_rate: tuple[float, ...]
    """By level."""
    refused: tuple[str, ...]
    """Verdicts that are not in ``stands`` because they would have dropped too much."""


def run(context: Context) -> FilterMetrics | None:
    """Write the selection that is left, and which of the given labels are."""
    dataset = Dataset(context.inputs["data"], context.config.data)
    before = HeapLabels.open(context.inputs["labels"])
    given = dataset.labels[dataset.labelled]
    judge: _Judge | None = None
    found: list[_Iteration] = []
    if (context.config.filter.enabled and before.keep.any()) or context.config.filter.labelled:
        judge = _Judge(context, dataset, before, given)
        found = judge.iterate()
    best = max(found, key=lambda each: each.made.score, default=None)
    keep = best.stands if best else _Keep(np.ones(given.shape, dtype=bool), before.keep)
    if not context.world.leads:
        return None
    terminal, config = before.labels.terminals(dataset.taxonomy), context.config.pseudolabel
    sure = before.labels.kept_confidence(keep.pseudo)
    selection = select(terminal, sure, keep.pseudo, dataset.taxonomy, config, context.key())
    selection.save(context.folder)
    save_given_keep(context.folder, keep.given)
    levels = dataset.taxonomy.levels
    metrics = FilterMetrics(
        ended="" if keep.pseudo.any() else nothing_to_learn(LabelMetrics.of(context.inputs["labels"].manifest), config),
        classes_gone=_classes_gone(dataset, terminal, before.selection, selection),
        kept=dict(zip(levels, keep.pseudo.sum(axis=0).tolist(), strict=True)),
        dropped=dict(zip(levels, (before.keep & ~keep.pseudo).sum(axis=0).tolist(), strict=True)),
        dropped_given=dict(zip(levels, (~keep.given & (given >= 0)).sum(axis=0).tolist(), strict=True)),
        shown=int((selection.copies > 0).sum()),
        copies=int(selection.copies.sum(dtype=np.int64)),
        iterations=tuple(each.made for each in found),
        image_passes=0,
        training_gmacs=0.0,
    )
    if judge is not None and best is not None:
        metrics = judge.reported(metrics, found, best)
    for line in in_words(metrics, before.keep):
        context.progress.say(f"  {line}")
    return metrics


def planned(config: Config) -> Iterator[PlannedTraining]:
    """The network of the self-ensemble, where labels are doubted at all."""
    own = config.filter
    if own.enabled or own.labelled:
        yield PlannedTraining("filter.model", "filter", own.model, own, batch_parts(own))


class _Judge:
    """Trains the filter network, and asks it and the labeller about every label."""

    def __init__(self, context: Context, dataset: Dataset, heap: HeapLabels, given: LabelArray) -> None:
        self._context = context
        self._config = context.config.filter
        self._dataset = dataset
        self._heap = heap
        self._given = given
        self._trainer = Trainer(context, dataset)
        self._outputs = self._trainer.outputs
        self._held_out = images_to_fit(dataset.validation, self._outputs)
        check_memory(len(heap) + len(given) + len(self._held_out), self._outputs)
        labeller = Ensemble.load(context.inputs["labeller"], self._trainer.placement)
        self._labeller_score = self._trainer.validation_score(labeller)
        self._labeller_says: Probabilities = ()
        self._probes: OutOfFoldProbes | None = None
        if context.world.leads:
            ids, batch_size = self._held_out, context.config.pseudolabel.batch_size
            self._labeller_says = predict(labeller, dataset.pixels, ids, batch_size, walk=self._trainer.walk)
            if self._config.labelled:
                self._probes = OutOfFoldProbes.of(context, self._trainer, ids)

    def iterate(self) -> list[_Iteration]:
        """Iterate while validation improves."""
        keep = _Keep(np.ones(self._given.shape, dtype=bool), self._heap.keep)
        found: list[_Iteration] = []
        for number in range(self._config.iterations):
            found.append(self._iteration(number, keep))
            keep = found[-1].stands
            # Where a verdict is refused there is nothing to go on from.
            if found[-1].refused or found[-1].made.score < max(each.made.score for each in found):
                break
        return found

    def reported(self, metrics: FilterMetrics, found: Sequence[_Iteration], best: _Iteration) -> FilterMetrics:
        """The metrics with what was found, and what it has cost."""
        levels = self._dataset.taxonomy.levels
        weights = {
            level: EvidenceWeights(weight.labeller, weight.ensemble)
            for level, weight in zip(levels, best.weights, strict=True)
        }
        rates = of_given = None
        if self._config.labelled:
            rates = dict(zip(levels, best.given_error_rate, strict=True))
            each = zip(levels, best.given_weights, strict=True)
            of_given = {level: {"probe": weight.labeller, "filter": weight.ensemble} for level, weight in each}
        parts = [Spent(each.made.image_passes or 0, each.made.training_gmacs or 0.0) for each in found]
        spent = total([*parts, self._probes.spent] if self._probes else parts)
        return replace(
            metrics,
            image_passes=spent.image_passes,
            training_gmacs=spent.training_gmacs,
            refused=best.refused,
            validation=best.made.validation,
            labeller_validation=self._labeller_score,
            weights=weights if self._config.enabled else None,
            given_weights=of_given,
            given_error_rate=rates,
        )

    def _iteration(self, number: int, keep: _Keep) -> _Iteration:
        """Train once on what stands, and judge all labels anew."""
        config, trainer, key = self._config, self._trainer, self._context.key("iteration", number)
        given = np.where(keep.given, self._given, UNKNOWN).astype(np.int32)
        pseudo = np.where(keep.pseudo, self._heap.kept_labels(), UNKNOWN).astype(np.int32)
        both = trainer.labelled(given), Examples(self._heap.images, GivenTargets(pseudo, trainer.outputs))
        parts, length = list(zip(both, trainer.mixed_batch(config), strict=True)), trainer.filter_length()
        # The momentum is that of a pass. Beside a large heap a labelled image is drawn many times in one, and its last
        # few predictions alone would be those of a network that knows it by heart.
        draws = [size * length.steps_per_epoch / max(1, len(examples.ids)) for examples, size in parts]
        momenta = [config.average_momentum ** (1 / max(1.0, each)) for each in draws]
        of_given, of_pseudo = map(trainer.running_average, (len(given), len(pseudo)), momenta)
        held_out = trainer.held_out(self._held_out, config.average_momentum, length, key)
        supervised = trainer.supervised(config, 1.0, self._heap.level_shares(np.ones(len(pseudo), dtype=np.int64)))
        strength = (config.consistency_weight, config.consistency_ramp)
        objective = SelfEnsembling(supervised, of_given, of_pseudo, *strength, held_out, gather=trainer.gather)
        lesson = Lesson(parts, objective, length, views={CLEAN: None})
        trained = trainer.train(f"filter {number}", config.model, config, lesson, key)
        return self._verdict(trained, of_given, of_pseudo, held_out.average)

    def _verdict(
        self, trained: Trained, of_given: RunningAverage, of_pseudo: RunningAverage, held_out: RunningAverage
    ) -> _Iteration:
        """What stands by what the averages say."""
        config, outputs = self._config, self._outputs
        network = self._trainer.ensemble([config.model], [trained.network])
        both, own, score = self._fitted(held_out)
        stands = _Keep(np.ones(self._given.shape, dtype=bool), self._heap.keep)
        rates: tuple[float, ...] = ()
        if config.enabled:
            pseudo = standing_pseudo_labels(self._heap.labels, of_pseudo, both, outputs, config.threshold)
            stands = replace(stands, pseudo=pseudo & self._heap.keep)
        if config.labelled:
            given, rates = self._of_given(of_given, own)
            stands = replace(stands, given=given)
        dropped = int((self._heap.keep & ~stands.pseudo).any(axis=1).sum())
        stands, refused = self._within_limit(stands)
        spent = trained.spent
        beside = config.epochs * len(held_out) * self._trainer.gmacs_in_training(network, config, config.epochs)
        made = FilterIteration(
            validation=self._trainer.validation_score(network),
            dropped=dropped,
            image_passes=spent.image_passes,
            training_gmacs=round(spent.training_gmacs + beside, 6),
            log_likelihood=round(score, 6),
        )
        return _Iteration(made, stands, both, own, rates, refused)

    def _of_given(self, average: RunningAverage, weights: tuple[Weights, ...]) -> tuple[Keep, tuple[float, ...]]:
        """Which of the given labels stand, and the share that is estimated to be wrong, by level."""
        said: Any = None
        if self._context.world.leads:
            probe, limit = self._probes.labelled if self._probes else None, self._config.labelled_threshold
            keep, rates = standing_given_labels(self._given, probe, average, weights, self._outputs, limit)
            said = keep.tolist(), rates
        keep_said, rates_said = self._context.world.agree(said)
        return np.array(keep_said, dtype=bool).reshape(self._given.shape), tuple(rates_said)

    def _fitted(self, held_out: RunningAverage) -> tuple[tuple[Weights, ...], tuple[Weights, ...], float]:
        """Weights of labeller and network for the heap, of probes and network for given labels, and the log-likelihood
        of those that count."""
        said: Any = None
        if self._context.world.leads:
            labels, network = self._dataset.labels[self._held_out], held_out.distributions()
            heard = Heard(self._labeller_says, network, labels, self._outputs)
            both, own = heard.weights(), heard.ensemble_alone()
            if self._probes:
                of_given = Heard(self._probes.others, network, labels, self._outputs)
                own = of_given.weights()
                heard = heard if self._config.enabled else of_given
            score = heard.log_likelihood(both if self._config.enabled else own)
            said = [[[weight.labeller, weight.ensemble] for weight in each] for each in (both, own)], score
        # On GPUs processes may differ in the last digit; all of them go by the leader's.
        (both_said, own_said), score = self._context.world.agree(said)
        return tuple(Weights(*each) for each in both_said), tuple(Weights(*each) for each in own_said), score

    def _within_limit(self, stands: _Keep) -> tuple[_Keep, tuple[str, ...]]:
        """What stands, less the verdicts that would drop more than is allowed, and why they are refused."""
        pseudo = self._too_much("pseudo-labels", self._heap.keep, stands.pseudo)
        given = self._too_much("given labels", self._given >= 0, stands.given)
        kept = _Keep(
            np.ones(self._given.shape, dtype=bool) if given else stands.given,
            self._heap.keep if pseudo else stands.pseudo,
        )
        return kept, tuple(why for why in (pseudo, given) if why)

    def _too_much(self, which: str, before: Keep, after: Keep) -> str:
        """Why a verdict is refused; empty if it is not."""
        limit, had = self._config.max_dropped_share, before.sum(axis=0)
        shares = (before & ~after).sum(axis=0) / np.maximum(1, had)
        worst = int(shares.argmax())
        if shares[worst] <= limit and (not had[worst] or shares[worst] < 1):
            return ""
        level = self._dataset.taxonomy.levels[worst]
        return (
            f"the filter would drop {shares[worst]:.0%} of the {level} {which} (filter.max_dropped_share is "
            f"{limit:.0%}): they all stay; train the filter longer (filter.epochs), or raise the limit if so many "
            "may be wrong"
        )


def _classes_gone(dataset: Dataset, terminal: np.ndarray, before: Selection, after: Selection) -> tuple[str, ...]:
    """Final labels that some image was taught whole before the filter, and none after it."""
    taxonomy = dataset.taxonomy
    depths = (taxonomy.terminal_rows >= 0).sum(axis=1)

    def taught(selection: Selection) -> np.ndarray:
        whole = (selection.copies > 0) & (selection.keep.sum(axis=1) >= depths[terminal])
        return np.bincount(terminal[whole], minlength=len(depths))

    gone = np.flatnonzero((taught(before) > 0) & (taught(after) == 0))
    return tuple("/".join(taxonomy.names(taxonomy.terminals[i]).values()) for i in gone)
