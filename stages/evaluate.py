"""Read the test images, once, and say by how much the final classifier beats the labels alone.

Nothing is chosen here: the final classifier is the last one that was promoted on validation.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
from nstudent.artifact import Artifact
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import HEADLINE, assess
from nstudent.evaluation.bootstrap import interval, paired_difference
from nstudent.evaluation.label_quality import KeptQuality, detection_quality
from nstudent.evaluation.metrics import Tallies
from nstudent.evaluation.plots import save_figure
from nstudent.labels.selection import Selection, load_given_keep
from nstudent.labels.store import LabelStore
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.stage import Context, Metrics
from nstudent.storage import write_json

SCORES = "scores.json"
FIGURE = "scores.png"
_COMPARED = (HEADLINE, "exact path")


def run(context: Context) -> Metrics:
    """Score every classifier of the run on validation and test; write scores.json and scores.png."""
    dataset = Dataset(context.inputs["data"], context.config.data)
    classifiers = [made for made in context.gathered if made.manifest.stage in ("teacher", "baseline", "student")]
    tallies = _tallies(context, dataset, classifiers)
    final = [made.name for made in classifiers if made.manifest.metrics.get("promoted")][-1]
    evaluate = context.config.evaluate
    scores: dict[str, Any] = {
        "final": final,
        "ended": next((why for made in context.gathered if (why := made.manifest.metrics.get("ended"))), None),
        "confidence": evaluate.confidence,
        "classifiers": {
            made.name: {
                "gmacs": made.manifest.metrics["gmacs"],
                "image_passes": made.manifest.metrics["image_passes"],
                # Steps that were made by an earlier version do not say.
                "training_gmacs": made.manifest.metrics.get("training_gmacs"),
                **{part: _intervals(context, tallies[made.name][part]) for part in ("validation", "test")},
            }
            for made in classifiers
        },
        "gain": _gains(context, tallies, final),
        "pseudo_labels": _pseudo_label_quality(context.gathered, dataset),
        "given_labels": _given_label_quality(context.gathered, dataset),
    }
    write_json(context.folder / SCORES, scores)
    histories = {made.name: made.manifest.metrics["history"] for made in classifiers}
    save_figure(context.folder / FIGURE, scores, histories)
    return {"final": final, "test": scores["classifiers"][final]["test"], "gain": scores["gain"]}


def _tallies(context: Context, dataset: Dataset, classifiers: list[Artifact]) -> dict[str, dict[str, Tallies]]:
    placement = Placement.from_config(context.config)
    batch_size = context.config.evaluate.batch_size
    tallies = {}
    with context.progress.task("evaluate", len(classifiers), "classifiers") as task:
        for made in classifiers:
            ensemble = Ensemble.load(made, placement)
            parts = {"validation": dataset.validation, "test": dataset.test}
            tallies[made.name] = {part: assess(ensemble, dataset, ids, batch_size) for part, ids in parts.items()}
            task.advance(1)
    return tallies


def _intervals(context: Context, tallies: Tallies) -> dict[str, Any]:
    evaluate = context.config.evaluate
    found = {name: interval(ratio, evaluate.resamples, evaluate.confidence) for name, ratio in tallies.items()}
    return {name: None if each is None else asdict(each) for name, each in found.items()}


def _gains(context: Context, tallies: dict[str, dict[str, Tallies]], final: str) -> dict[str, Any]:
    """Paired differences on test of the final classifier against the teacher and the baseline."""
    evaluate = context.config.evaluate
    others = [name for name in tallies if name != final and name.endswith(("-teacher", "-baseline"))]
    return {
        name: {
            score: asdict(
                paired_difference(
                    tallies[final]["test"][score],
                    tallies[name]["test"][score],
                    evaluate.resamples,
                    evaluate.confidence,
                )
            )
            for score in _COMPARED
        }
        for name in others
    }


def _pseudo_label_quality(gathered: Iterable[Artifact], dataset: Dataset) -> dict[str, Any]:
    """Before the filter and after it, for every round."""
    truth = dataset.hidden_truth()
    quality = {}
    store: LabelStore | None = None
    for made in gathered:
        if made.manifest.stage == "pseudolabel":
            store = LabelStore.open(made)
        elif made.manifest.stage != "filter":
            continue
        assert store is not None, "labels come before they are filtered"
        keep = Selection.load(made).keep
        kept = KeptQuality(dataset.taxonomy.levels)
        for part in store.parts():
            kept.add(part.paths, truth[part.images], keep[part.rows])
        quality[made.name] = kept.found()
    return quality


def _given_label_quality(gathered: Iterable[Artifact], dataset: Dataset) -> dict[str, Any]:
    """How well the filter found wrong given labels; empty where none is known to be wrong."""
    ids = dataset.labelled
    given, truth = dataset.labels[ids], dataset.hidden_truth()[ids]
    if np.array_equal(given, truth):
        return {}
    return {
        made.name: detection_quality(given, truth, load_given_keep(made), dataset.taxonomy.levels)
        for made in gathered
        if made.manifest.stage == "filter"
    }
