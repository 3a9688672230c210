"""Label the heap with the un-noised labeller, only as deep as it is sure.

Where the fine class is doubtful and the mid class is not, the image keeps its mid class and its fine level becomes
unknown: a partial path is still a label.
"""

import numpy as np
from nstudent.data.dataset import Dataset
from nstudent.evaluation.calibration import apply_temperature, fit_temperatures
from nstudent.labels import store
from nstudent.labels.decoding import best_paths, path_confidence
from nstudent.labels.selection import deep_enough, select
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import predict
from nstudent.stage import Context, Metrics


def run(context: Context) -> Metrics:
    """Write the label store and the first selection from it."""
    config = context.config.pseudolabel
    dataset = Dataset(context.inputs["data"])
    labeller = Ensemble.load(context.inputs["labeller"], Placement.from_config(context.config))
    # A row: its id, per level a class and a confidence, and every probability in half precision.
    row = 8 + 8 * dataset.taxonomy.num_levels + 2 * sum(labeller.recipe.outputs)
    context.reserve(row * len(dataset.unlabelled))
    temperatures = _temperatures(context, dataset, labeller)
    _label(context, dataset, labeller, temperatures)
    context.world.agree()
    if not context.world.leads:
        return {}
    store.finish(context.folder, dataset.taxonomy, temperatures, context.inputs["labeller"].manifest.id)

    labels = store.LabelStore(store.shards(context.folder), dataset.taxonomy.levels)
    keep = deep_enough(labels.confidence, config.threshold)
    terminal = dataset.taxonomy.terminal_of(labels.paths)
    selection = select(terminal, labels.confidence, keep, config, context.key())
    selection.save(context.folder)
    return {
        "labelled_images": len(labels),
        "kept": dict(zip(dataset.taxonomy.levels, keep.sum(axis=0).tolist(), strict=True)),
        "shown": int((selection.copies > 0).sum()),
        "copies": int(selection.copies.sum()),
        "temperatures": list(temperatures),
        "highest_confidence": float(labels.confidence.max(initial=0.0)),
    }


def _temperatures(context: Context, dataset: Dataset, labeller: Ensemble) -> tuple[float, ...]:
    if not context.config.pseudolabel.calibrate:
        return (1.0,) * dataset.taxonomy.num_levels
    ids = dataset.validation
    probabilities = predict(labeller, dataset.pixels, ids, context.config.pseudolabel.batch_size)
    return fit_temperatures(probabilities, dataset.labels[ids], dataset.taxonomy.num_classes)


def _label(context: Context, dataset: Dataset, labeller: Ensemble, temperatures: tuple[float, ...]) -> None:
    """Make the shards that are not there yet."""
    config, heap, taxonomy = context.config.pseudolabel, dataset.unlabelled, dataset.taxonomy
    with context.progress.task("label", len(heap), "images") as task:
        for number, first in enumerate(range(0, len(heap), config.shard_rows)):
            if number % context.world.size != context.world.rank:
                continue
            last = min(first + config.shard_rows, len(heap))
            path = store.shard_path(context.folder, first, last)
            if path.exists():
                task.advance(last - first)
                continue
            ids = heap[first:last]
            raw = predict(labeller, dataset.pixels, ids, config.batch_size, task)
            calibrated = [apply_temperature(level, t) for level, t in zip(raw, temperatures, strict=True)]
            paths = best_paths(calibrated, taxonomy)
            confidence = path_confidence(calibrated, paths, taxonomy)
            store.write_shard(path, ids.astype(np.int64), calibrated, paths, confidence, taxonomy.levels)
