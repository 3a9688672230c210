"""Read the test images, once, and say by how much the best classifier that saw the heap beats the labels alone.

Nothing is chosen here: the final classifier, and the best with and without the heap, are what the last choice took on
validation.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from nstudent.data.dataset import Dataset, Ids
from nstudent.evaluation.assess import Assessed, assess
from nstudent.evaluation.bootstrap import compared, interval
from nstudent.evaluation.label_quality import (
    given_label_quality,
    heap_label_quality,
    held_out_quality,
    labels_without_images,
)
from nstudent.evaluation.level_calibration import calibration_of_levels
from nstudent.evaluation.metrics import Tallies
from nstudent.evaluation.metrics import scores as score_of
from nstudent.evaluation.plots import save_figure
from nstudent.evaluation.predictions import PredictionWriter
from nstudent.evaluation.refit_scores import REFIT_SCORES, RefitScores, trained_again
from nstudent.evaluation.scores import (
    FIGURE,
    HEADLINE,
    SCORES,
    ClassifierScores,
    Difference,
    Gap,
    HeapGain,
    Intervals,
    Labelling,
    Scores,
    Side,
)
from nstudent.labels.consistency import CONSISTENT, Consistency
from nstudent.labels.heap_labels import HeapLabels
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import Walk, told
from nstudent.models.recipe import Recipe
from nstudent.progress import Task
from nstudent.runs.candidate_ensembles import ensemble_of
from nstudent.runs.lineage import cost, made_from
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import (
    LABELS_ALONE,
    Candidate,
    ChoiceMetrics,
    FilterMetrics,
    RefitMetrics,
    ScoreMetrics,
    TrainedMetrics,
)
from nstudent.storage.artifact import Artifact
from nstudent.storage.files import write_json

_Parts = Mapping[str, Assessed]
"""What a classifier says of validation and test, by these names."""


def run(context: Context) -> ScoreMetrics:
    """Score every classifier of the run on validation and test; write scores, a picture, and all predictions."""
    dataset = Dataset(context.inputs["data"], context.config.data)
    filters = context.all("selection")
    trained = {made.name: TrainedMetrics.of(made.manifest) for made in context.all("classifier")}
    scoring = _Scoring(context, dataset)
    sides = {name: _side(context, candidate, scoring.of(candidate)) for name, candidate in scoring.candidates.items()}
    choice, judged = scoring.choice, _judged(context)
    scores = Scores(
        final=sides[choice.chosen],
        ended=next((why for made in filters if (why := FilterMetrics.of(made.manifest).ended)), None),
        confidence=context.config.evaluate.confidence,
        classifiers={name: _scores(context, trained[name], parts) for name, parts in scoring.steps.items()},
        heap_gain=_heap_gain(context, scoring, sides),
        equal_passes=_equal_passes(context, scoring.steps),
        calibration=calibration_of_levels(
            scoring.of(choice.taken)["test"],
            scoring.uncalibrated,
            dataset.labels[dataset.test],
            dataset.taxonomy.levels,
        ),
        labelling=_labellings(context, dataset),
        pseudo_labels=heap_label_quality(context.all("labels", "selection"), judged, dataset),
        given_labels=given_label_quality(filters, dataset),
        inconsistent=1 - float(scoring.uncalibrated.also[CONSISTENT].mean()),
    )
    write_json(context.folder / SCORES, scores.to_json())
    for made in context.all("refit"):
        write_json(context.folder / REFIT_SCORES, _refit_scores(context, dataset, scoring, sides, made).to_json())
    histories = {name: metrics.history for name, metrics in trained.items()}
    save_figure(context.folder / FIGURE, scores, histories, {name: made.name for name, made in judged.items()})
    gain = scores.heap_gain.difference if scores.heap_gain else None
    return ScoreMetrics(scores.final.name, scores.final.test, gain)


class _Scoring:
    """What the classifiers of a run say of validation and test: those of its steps, its result, and the two sides."""

    def __init__(self, context: Context, dataset: Dataset) -> None:
        self._context = context
        self._dataset = dataset
        self._placement = Placement.from_config(context.config)
        self._made = {made.name: made for made in context.all("classifier")}
        result = context.inputs["labeller"]
        self.choice = ChoiceMetrics.of(result.manifest)
        alone = [each.name for each in self.choice.candidates if not each.saw_heap]
        names = dict.fromkeys((self.choice.chosen, self.choice.with_heap, *alone))
        self.candidates = {name: self.choice.candidate(name) for name in names if name is not None}
        """The final classifier, the best one with the heap, and all that learnt from the labels alone."""
        pools = [each for each in self.candidates.values() if len(each.parts) > 1 and each != self.choice.taken]
        # The result is asked twice about test: as it is used, and without temperatures.
        again = [(made, prefix) for made in context.all("refit") for prefix in RefitMetrics.of(made.manifest).prefixes]
        num_scored = len(self._made) + 1 + len(pools)
        total = num_scored * (len(dataset.validation) + len(dataset.test)) + (1 + len(again)) * len(dataset.test)
        with context.progress.task(f"score {num_scored} classifiers", total, "images") as task:
            self._walk: Walk = told(context.walks.batches, task)
            self.steps: dict[str, _Parts] = {}
            """By step that trained."""
            for made in self._made.values():
                self.steps[made.name] = self._assess(self._decoded(Ensemble.load(made, self._placement)), made.name)
            # The result as it is used, which a pool of the same parts could differ from by rounding alone.
            final = Ensemble.load(result, self._placement)
            self._found = {self.choice.chosen: self._assess(final, result.name)}
            raw = final.with_member_temperatures(None).calibrated(None)
            batch_size = context.config.evaluate.batch_size
            agree = Consistency(raw.recipe.outputs)
            self.uncalibrated = assess(raw, dataset, dataset.test, batch_size, walk=self._walk, also=agree)
            """What the networks of the result say of test without any temperature."""
            for pool in pools:
                self._found[pool.name] = self._assess(self._pooled(pool))
            self.again: dict[str, _Parts] = {}
            """By the prefix of its files, what was trained again says of test; it has learnt from validation."""
            for made, prefix in again:
                ensemble, kept_as = Ensemble.load(made, self._placement, prefix), None if prefix else made.name
                self.again[prefix] = self._assess(ensemble, kept_as, {"test": dataset.test})

    def of(self, candidate: Candidate) -> _Parts:
        """What a candidate says that is the final classifier or a side of the gain."""
        return self._found[candidate.name] if candidate.name in self._found else self.steps[candidate.name]

    def _pooled(self, pool: Candidate) -> Ensemble:
        parts = {name: Ensemble.load(self._made[name], self._placement) for name in pool.parts}
        return ensemble_of(pool, parts, self._context.config.decoder)

    def _decoded(self, ensemble: Ensemble) -> Ensemble:
        """The ensemble with the decoder that the result of the run has: all are scored by the same rule."""
        return ensemble.decoded_by(self._context.config.decoder)

    def _assess(self, ensemble: Ensemble, kept_as: str | None = None, parts: Mapping[str, Ids] | None = None) -> _Parts:
        """Score an ensemble, on validation and test if nothing is said, and keep its predictions as those of a step."""
        dataset, batch_size, walk = self._dataset, self._context.config.evaluate.batch_size, self._walk
        parts = parts or {"validation": dataset.validation, "test": dataset.test}
        if kept_as is None:
            return {part: assess(ensemble, dataset, ids, batch_size, walk=walk) for part, ids in parts.items()}
        writer = PredictionWriter(self._context.folder, kept_as, dataset, ensemble.recipe.outputs)
        # Twice: until the step is there, it lies in its scratch folder as well.
        self._context.reserve(2 * writer.row_bytes * sum(map(len, parts.values())))
        found = {part: assess(ensemble, dataset, ids, batch_size, writer, walk) for part, ids in parts.items()}
        writer.finish()
        return found


def _scores(context: Context, trained: TrainedMetrics, parts: _Parts) -> ClassifierScores:
    return ClassifierScores(
        gmacs=trained.gmacs,
        image_passes=trained.image_passes,
        training_gmacs=trained.training_gmacs,
        validation=_intervals(context, parts["validation"].tallies),
        test=_intervals(context, parts["test"].tallies),
        on_tree=parts["test"].on_tree,
    )


def _side(context: Context, candidate: Candidate, parts: _Parts) -> Side:
    manifests = {made.name: made.manifest for made in context.gathered}
    steps = made_from(candidate.parts, manifests)
    spent = cost(steps, manifests)
    return Side(
        name=candidate.name,
        parts=candidate.parts,
        gmacs=candidate.gmacs,
        training_gmacs=spent.training_gmacs,
        image_passes=spent.image_passes,
        made_from=tuple(sorted(steps)),
        validation=_intervals(context, parts["validation"].tallies),
        test=_intervals(context, parts["test"].tallies),
        on_tree=parts["test"].on_tree,
    )


def _intervals(context: Context, tallies: Tallies) -> Intervals:
    evaluate = context.config.evaluate
    return {name: interval(ratio, evaluate.resamples, evaluate.confidence) for name, ratio in tallies.items()}


def _difference(context: Context, first: _Parts, second: _Parts) -> dict[str, Difference]:
    """Paired on test, by score."""
    evaluate = context.config.evaluate
    return compared(first["test"].tallies, second["test"].tallies, evaluate.resamples, evaluate.confidence)


def _heap_gain(context: Context, scoring: _Scoring, sides: Mapping[str, Side]) -> HeapGain | None:
    choice = scoring.choice
    if choice.with_heap is None or choice.labels_alone is None:
        return None
    ours = scoring.of(scoring.candidates[choice.with_heap])
    gaps = {
        name: _gap(context, ours, scoring.of(each), sides[name].test)
        for name, each in scoring.candidates.items()
        if not each.saw_heap
    }
    chosen = gaps.pop(choice.labels_alone)
    return HeapGain(
        with_heap=sides[choice.with_heap],
        labels_alone=sides[choice.labels_alone],
        difference=chosen.difference,
        differing=chosen.differing,
        others=gaps,
    )


def _gap(context: Context, ours: _Parts, theirs: _Parts, test: Intervals) -> Gap:
    apart = ours["test"].tallies[HEADLINE] - theirs["test"].tallies[HEADLINE]
    return Gap(_difference(context, ours, theirs), int((np.abs(apart[:, 0]) > 1e-9).sum()), test)


def _refit_scores(
    context: Context, dataset: Dataset, scoring: _Scoring, sides: Mapping[str, Side], made: Artifact
) -> RefitScores:
    refit = RefitMetrics.of(made.manifest)

    def side(before: Side, name: str, gmacs: float, parts: _Parts) -> Side:
        spent = [(refit.parts[part].image_passes, refit.parts[part].training_gmacs) for part in before.parts]
        again = trained_again(before, (sum(each[0] for each in spent), sum(each[1] for each in spent)), made.name)
        test = parts["test"]
        return replace(again, name=name, gmacs=gmacs, test=_intervals(context, test.tallies), on_tree=test.on_tree)

    ours, theirs = scoring.again[""], scoring.again.get(LABELS_ALONE)
    alone = None
    if theirs and refit.labels_alone and refit.labels_alone_gmacs is not None:
        before = sides[refit.labels_alone]
        alone = side(before, f"{before.name}, refit", refit.labels_alone_gmacs, theirs)
    return RefitScores(
        final=side(sides[refit.name], made.name, refit.gmacs, ours),
        over_chosen=_difference(context, ours, scoring.of(scoring.candidates[refit.name])),
        labels_alone=alone,
        gain=_difference(context, ours, theirs) if theirs else None,
        calibration=calibration_of_levels(ours["test"], None, dataset.labels[dataset.test], dataset.taxonomy.levels),
    )


def _equal_passes(context: Context, steps: Mapping[str, _Parts]) -> dict[str, Difference] | None:
    """The last student minus what has its architecture, as many image passes, and nothing from the heap."""
    students = [made for made in context.all("classifier") if made.manifest.round]
    alone = [made for made in context.all("classifier") if not made.manifest.round]
    for student in students[-1:]:
        for other in alone:
            passes = {TrainedMetrics.of(made.manifest).image_passes for made in (student, other)}
            if len(passes) == 1 and 0 not in passes and Recipe.read(student).members == Recipe.read(other).members:
                return _difference(context, steps[student.name], steps[other.name])
    return None


def _labellings(context: Context, dataset: Dataset) -> dict[str, Labelling]:
    """By step that labelled the heap."""
    steps = context.all("labels")
    with context.progress.task("check the labels", len(steps) * len(dataset.validation), "images") as task:
        return {made.name: _labelling(context, dataset, made, task) for made in steps}


def _labelling(context: Context, dataset: Dataset, made: Artifact, task: Task) -> Labelling:
    """What can be said of the labels of a step without the truth about the heap: its labeller labels validation too."""
    labeller = next(each for each in context.all("labeller") if each.name in made.manifest.inputs)
    ensemble = Ensemble.load(labeller, Placement.from_config(context.config))
    ids, walk = dataset.validation, told(context.walks.batches, task)
    found = assess(ensemble, dataset, ids, context.config.evaluate.batch_size, walk=walk)
    heap, truth = HeapLabels.open(made), dataset.labels[dataset.validation]
    given = dataset.labels[dataset.labelled]
    # The labels were asked for with this threshold: with another one they, and so the scores, are out of date.
    threshold = context.config.pseudolabel.threshold
    return Labelling(
        labeller=labeller.name,
        validation=score_of(found.tallies)[HEADLINE],
        levels=held_out_quality(found, truth, heap, threshold, dataset.taxonomy.levels),
        without_labels=labels_without_images(given, heap, dataset.taxonomy),
    )


def _judged(context: Context) -> dict[str, Artifact]:
    """The labels that each filter step judged, by the name of the filter's step: its manifest names what it read."""
    labels = {made.name: made for made in context.all("labels")}
    return {
        made.name: next(labels[name] for name in made.manifest.inputs if name in labels)
        for made in context.all("selection")
    }
