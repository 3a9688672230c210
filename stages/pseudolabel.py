"""Label the heap with the un-noised labeller, only as deep as it is sure.

Where the fine class is doubtful and the mid class is not, the image keeps its mid class and its fine level becomes
unknown: a partial path is still a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nstudent.data.dataset import Dataset, Ids
from nstudent.errors import StoppedError
from nstudent.labels import store
from nstudent.labels.decoders import build_decoder
from nstudent.labels.selection import select
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import BatchSize, Found, batches
from nstudent.models.members import Levels
from nstudent.progress import Task
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import LabelMetrics
from nstudent.signals import OverdueStop
from nstudent.storage.sealed import SCRATCH, SealedFiles
from torch import Tensor

_NEXT_TO_NOTHING = 0.02
"""Share of a level's labels below which it is said that hardly any of them is kept."""


def run(context: Context) -> LabelMetrics | None:
    """Write the label store and the first selection from it."""
    config = context.config.pseudolabel
    dataset = Dataset(context.inputs["data"], context.config.data)
    taxonomy = dataset.taxonomy
    labeller = Ensemble.load(context.inputs["labeller"], Placement.from_config(context.config))
    labeller.compile()
    layout = store.Layout.of(labeller.recipe.outputs, config.top_k)
    context.reserve(layout.row_bytes * len(dataset.unlabelled))
    size = BatchSize.starting(config.batch_size, labeller)
    _Labelling(dataset, labeller, layout, size).make(context)
    context.world.agree()
    if not context.world.leads:
        return None
    calibration = labeller.recipe.calibration
    store.finish(context.folder, layout, calibration, context.inputs["labeller"].manifest.id)

    labels = store.LabelStore(store.shards(context.folder), taxonomy.levels)
    keep = labels.deep_enough(config.threshold)
    selection = select(labels.terminals(taxonomy), labels.kept_confidence(keep), keep, taxonomy, config, context.key())
    selection.save(context.folder)
    _say_which_levels_are_bare(context, taxonomy.levels, labels, keep)
    return LabelMetrics(
        labelled_images=len(labels),
        kept=dict(zip(taxonomy.levels, keep.sum(axis=0).tolist(), strict=True)),
        shown=int((selection.copies > 0).sum()),
        copies=int(selection.copies.sum()),
        temperatures=calibration.temperatures if calibration else (),
        ends=calibration.ends if calibration else (),
        highest_confidence=max(float(part.confidence.max(initial=0.0)) for part in labels.parts()),
    )


def _say_which_levels_are_bare(
    context: Context, levels: Sequence[str], labels: store.LabelStore, keep: npt.NDArray[np.bool_]
) -> None:
    """Name the levels of which next to nothing is kept: of these a student learns from the given labels alone."""
    could = np.zeros(keep.shape[1], dtype=np.int64)
    for part in labels.parts():
        could += (part.confidence > 0).sum(axis=0)
    for level, had, kept in zip(levels, could.tolist(), keep.sum(axis=0).tolist(), strict=True):
        if kept < _NEXT_TO_NOTHING * had:
            context.progress.say(
                f"  {kept:,} of {had:,} {level} labels reach pseudolabel.threshold "
                f"({context.config.pseudolabel.threshold}): of that level students learn from the given labels alone, "
                "or nearly so"
            )


class _Labelling:
    """Makes the shards that are not there yet, holding a shard in the types of the store and a few batches."""

    def __init__(self, dataset: Dataset, labeller: Ensemble, layout: store.Layout, size: BatchSize) -> None:
        self._dataset = dataset
        self._labeller = labeller
        self._layout = layout
        self._size = size
        self._decoder = build_decoder(labeller.recipe.decoder, labeller.recipe.outputs)

    def make(self, context: Context) -> None:
        """Label the heap, or this process's share of its shards."""
        heap, rows = self._dataset.unlabelled, context.config.pseudolabel.shard_rows
        sealed = SealedFiles(context.folder, context.progress.say)
        missing: list[_Unfinished] = []
        with context.progress.task("label", len(heap), "images") as task:
            for number, first in enumerate(range(0, len(heap), rows)):
                if number % context.world.size != context.world.rank:
                    continue
                ids = heap[first : first + rows]
                name = store.shard_path(context.folder, first, first + len(ids)).name
                if sealed.has(name):
                    task.advance(len(ids))
                else:
                    missing.append(_Unfinished(sealed, name, ids))
                    task.advance(missing[-1].num_kept)
            self.shards(missing, task)

    def shards(self, wanted: Sequence[_Unfinished], task: Task) -> None:
        """Make some shards, in one walk through their images: between two of them the device does not run dry.

        A shard is written in a thread while the next one is made. An error, or a stop that is asked for, waits for it;
        what is made of the next one by then is kept.
        """
        if not wanted:
            return
        every = np.concatenate([each.ids[each.num_kept :] for each in wanted])
        walk = batches(self._labeller, self._dataset.pixels, every, self._size, self._labels)
        with ThreadPoolExecutor(1, thread_name_prefix="shards") as beside, closing(walk):
            pieces, writing = _Pieces(walk), beside.submit(lambda: None)
            for each in wanted:
                shard, first = each.begun(self._layout)
                try:
                    while first < len(each.ids):
                        piece = pieces.next(len(each.ids) - first)
                        shard.put(first, piece)
                        first += len(piece["path"])
                        task.advance(len(piece["path"]))
                except (StoppedError, OverdueStop):
                    each.keep(shard, first)
                    raise
                writing.result()
                writing = beside.submit(each.write, shard)
            writing.result()

    def _labels(self, levels: Levels) -> Mapping[str, Tensor]:
        """The labels of a batch as they are stored, from its distributions per level."""
        found = self._decoder.decode(levels)
        return self._layout.columns(levels, found.paths, found.confidence)


class _Unfinished:
    """A shard that is to be made, and the rows of it that an attempt has made that was asked to stop."""

    def __init__(self, sealed: SealedFiles, name: str, ids: Ids) -> None:
        self.ids = ids
        """Ids of its images."""
        self.num_kept = 0
        """Number of rows that are made."""
        self._sealed = sealed
        self._name = name
        kept = sealed.path(SCRATCH).glob(f"{Path(name).stem}-first-*.h5")
        for path in sorted(kept, reverse=True):
            # Rows that hold what was written: those of an earlier stop may, where those of the last do not.
            if not self.num_kept and sealed.has(f"{SCRATCH}/{path.name}"):
                self.num_kept = int(path.stem.rpartition("-")[2])

    def begun(self, layout: store.Layout) -> tuple[store.Shard, int]:
        """The shard with the rows that are made, and how many these are."""
        shard = store.Shard(self.ids, layout)
        return shard, shard.take(self._sealed.path(self._kept(self.num_kept))) if self.num_kept else 0

    def keep(self, shard: store.Shard, rows: int) -> None:
        """Keep the first rows for the next attempt."""
        if rows > self.num_kept:
            self._sealed.write(self._kept(rows), shard.encoded(rows))

    def write(self, shard: store.Shard) -> None:
        """Write the shard, every row of which is made."""
        self._sealed.write(self._name, shard.encoded(len(self.ids)))

    def _kept(self, rows: int) -> str:
        return f"{SCRATCH}/{Path(self._name).stem}-first-{rows:09d}.h5"


class _Pieces:
    """Batches of rows, cut where somebody wants fewer of them."""

    def __init__(self, walk: Iterator[Found]) -> None:
        self._walk = walk
        self._rest: Found = {}

    def next(self, most: int) -> Found:
        """The next rows: the rest of a batch, or a whole one, but at most so many."""
        batch = self._rest or next(self._walk)
        piece = {name: rows[:most] for name, rows in batch.items()}
        self._rest = {name: rows[most:] for name, rows in batch.items() if len(rows) > most}
        return piece
