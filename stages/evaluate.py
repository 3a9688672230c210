"""Read the test images, once, and say by how much the final classifier beats the labels alone.

Nothing is chosen here: the final classifier is the last one that was promoted on validation.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.bootstrap import interval, paired_difference
from nstudent.evaluation.label_quality import KeptQuality, detection_quality
from nstudent.evaluation.metrics import Tallies
from nstudent.evaluation.plots import save_figure
from nstudent.evaluation.predictions import PredictionWriter
from nstudent.evaluation.scores import (
    COMPARED,
    FIGURE,
    SCORES,
    ClassifierScores,
    DetectionQuality,
    Difference,
    Intervals,
    LevelQuality,
    Scores,
)
from nstudent.labels.heap_labels import HeapLabels
from nstudent.labels.selection import load_given_keep
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import FilterMetrics, ScoreMetrics, TrainedMetrics
from nstudent.storage.artifact import Artifact
from nstudent.storage.files import write_json

_Parts = dict[str, Tallies]
"""Tallies on validation and test, by these names."""


def run(context: Context) -> ScoreMetrics:
    """Score every classifier of the run on validation and test; write scores, a picture, and all predictions."""
    dataset = Dataset(context.inputs["data"], context.config.data)
    classifiers, filters = context.all("labeller", "baseline"), context.all("selection")
    trained = {made.name: TrainedMetrics.of(made.manifest) for made in classifiers}
    tallies = _tallies(context, dataset, classifiers)
    judged = _judged(context)
    final = [name for name, metrics in trained.items() if metrics.promoted][-1]
    found = {name: _scores(context, trained[name], parts) for name, parts in tallies.items()}
    scores = Scores(
        final=Side(final, {final: 1.0}, *_cost(trained[final]), 0.0, found[final].validation, found[final].test),
        ended=next((why for made in filters if (why := FilterMetrics.of(made.manifest).ended)), None),
        confidence=context.config.evaluate.confidence,
        classifiers=found,
        heap_gain=None,
        equal_passes=None,
        calibration={},
        labelling={},
        pseudo_labels=_pseudo_label_quality(context.all("labels", "selection"), judged, dataset),
        given_labels=_given_label_quality(filters, dataset),
    )
    write_json(context.folder / SCORES, scores.to_json())
    histories = {name: metrics.history for name, metrics in trained.items()}
    save_figure(context.folder / FIGURE, scores, histories, {name: made.name for name, made in judged.items()})
    return ScoreMetrics(final, scores.final.test, gain=None)


def _judged(context: Context) -> dict[str, Artifact]:
    """The labels that each filter step judged, by the name of the filter's step: its manifest names what it read."""
    labels = {made.name: made for made in context.all("labels")}
    return {
        made.name: next(labels[name] for name in made.manifest.inputs if name in labels)
        for made in context.all("selection")
    }


def _tallies(context: Context, dataset: Dataset, classifiers: Sequence[Artifact]) -> dict[str, _Parts]:
    placement = Placement.from_config(context.config)
    batch_size = context.config.evaluate.batch_size
    tallies = {}
    with context.progress.task("evaluate", len(classifiers), "classifiers") as task:
        for made in classifiers:
            ensemble = Ensemble.load(made, placement)
            writer = PredictionWriter(context.folder, made.name, dataset, ensemble.recipe.outputs)
            parts = {"validation": dataset.validation, "test": dataset.test}
            context.reserve(writer.row_bytes * sum(map(len, parts.values())))
            tallies[made.name] = {
                part: assess(ensemble, dataset, ids, batch_size, writer).tallies for part, ids in parts.items()
            }
            writer.finish()
            task.advance(1)
    return tallies


def _scores(context: Context, trained: TrainedMetrics, tallies: _Parts) -> ClassifierScores:
    return ClassifierScores(
        gmacs=trained.gmacs,
        image_passes=trained.image_passes,
        training_gmacs=trained.training_gmacs,
        validation=_intervals(context, tallies["validation"]),
        test=_intervals(context, tallies["test"]),
    )


def _intervals(context: Context, tallies: Tallies) -> Intervals:
    evaluate = context.config.evaluate
    return {name: interval(ratio, evaluate.resamples, evaluate.confidence) for name, ratio in tallies.items()}


def _gains(
    context: Context, tallies: dict[str, _Parts], final: str, others: Sequence[str]
) -> dict[str, dict[str, Difference]]:
    """Paired differences on test of the final classifier against those that learnt from the given labels alone."""
    evaluate = context.config.evaluate

    def gain(other: str, score: str) -> Difference:
        ours, theirs = (tallies[name]["test"][score] for name in (final, other))
        return paired_difference(ours, theirs, evaluate.resamples, evaluate.confidence)

    return {name: {score: gain(name, score) for score in COMPARED} for name in others if name != final}


def _pseudo_label_quality(
    steps: Iterable[Artifact], judged: dict[str, Artifact], dataset: Dataset
) -> dict[str, dict[str, LevelQuality]]:
    """Before the filter and after it, for every round."""
    truth = dataset.hidden_truth()
    quality = {}
    for made in steps:
        heap = HeapLabels.open(judged[made.name], made) if made.name in judged else HeapLabels.open(made)
        kept = KeptQuality(dataset.taxonomy.levels)
        for part in heap.labels.parts():
            kept.add(part.paths, truth[part.images], heap.keep[part.rows])
        quality[made.name] = kept.found()
    return quality


def _given_label_quality(filters: Iterable[Artifact], dataset: Dataset) -> dict[str, dict[str, DetectionQuality]]:
    """How well each filter found wrong given labels; empty where none is known to be wrong."""
    ids = dataset.labelled
    given, truth = dataset.labels[ids], dataset.hidden_truth()[ids]
    if np.array_equal(given, truth):
        return {}
    return {
        made.name: detection_quality(given, truth, load_given_keep(made), dataset.taxonomy.levels) for made in filters
    }
