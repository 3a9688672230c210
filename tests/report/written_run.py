"""Run folders that nothing was trained for: files as their writers leave them, with numbers that tests choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from measured_runs import FOUND, choice, data, difference, history
from nstudent.config.schema import Config
from nstudent.config.yaml_text import dump_yaml
from nstudent.data.curation.split import TEST, TRAIN, UNLABELLED, VALIDATION
from nstudent.data.dataset import DUPLICATE, INDEX, OK, TAXONOMY, TRUTH
from nstudent.data.left_out import LEFT_OUT
from nstudent.data.packing.shards import shard_name
from nstudent.evaluation.scores import (
    HEADLINE,
    SCORES,
    ClassifierScores,
    HeapGain,
    Interval,
    LevelCalibration,
    LevelReach,
    ReliabilityBin,
    Scores,
    Side,
    TreeScores,
)
from nstudent.labels.selection import Selection
from nstudent.labels.store import DESCRIPTION, Layout, shard_path
from nstudent.runs.plan import plan
from nstudent.runs.stage import Step
from nstudent.runs.step_metrics import FilterMetrics, LabelMetrics, ScoreMetrics, TrainedMetrics
from nstudent.storage.artifact import FINAL, Manifest, Metrics
from nstudent.storage.commit import commit, open_partial
from nstudent.storage.files import atomic_write, write_json
from nstudent.storage.hdf5 import write
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import UNKNOWN, Taxonomy

Rows = npt.NDArray[np.int32]
FRUIT = (("fruit", "apple"), ("fruit", "pear"), ("root", "carrot"), ("root", "beet"))


@dataclass(frozen=True)
class WrittenRun:
    """What a run folder is to hold."""

    folder: Path
    labels: Sequence[tuple[str, ...]] = FRUIT
    """The terminals of the tree."""
    levels: tuple[str, ...] = ("coarse", "fine")
    test: Rows = field(default_factory=lambda: np.array([0, 0, 1, 2, 2, 3]))
    """Terminal of each test image."""
    said: Rows = field(default_factory=lambda: np.array([0, 1, 1, 2, 0, 3]))
    """Terminal that the final classifier gives each of them."""
    heap: Rows = field(default_factory=lambda: np.array([0, 0, 1, 1, 2, 3, 3, 3]))
    """Terminal that each unlabelled image is labelled with."""
    heap_truth: Rows | None = None
    """Their true terminals; by default nobody knows them."""
    dropped: tuple[tuple[int, int], ...] = ()
    """Row and level of the labels that the filter drops, in every round."""
    rounds: int = 1
    names: str = "photo {}.jpg"
    """How images are called."""
    side: int = 8
    storage: str = "pixels"
    epochs: tuple[dict[str, float], ...] = history(0.5, 0.6, 0.7)
    curves: bool = False
    """Whether the curves lie in their folder, or only in the manifests."""

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        page = {"source": "folder", "root": "/nowhere", "levels": list(self.levels), "image_size": self.side}
        return Config.model_validate({"name": "written", "rounds": self.rounds, "probe": {"members": []}, "data": page})

    @property
    def taxonomy(self) -> Taxonomy:
        """The tree."""
        return Taxonomy.from_labels([tuple(label) for label in self.labels], self.levels)

    def write(self) -> Path:
        """Write the folder, and return it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self.folder / "config.yaml", dump_yaml(self.config.model_dump(mode="json")).encode())
        made: dict[str, Manifest] = {}
        for step in plan(self.config):
            made[step.name] = self._step(step, made)
        write_json(self.folder / FINAL, {"step": self._last("labeller")})
        return self.folder

    def _last(self, role: str) -> str:
        return [step.name for step in plan(self.config) if step.stage.provides == role][-1]

    def _step(self, step: Step, made: Mapping[str, Manifest]) -> Manifest:
        folder = self.folder / step.name
        partial = open_partial(folder, {})
        writers = {
            "data": self._data,
            "classifier": self._classifier,
            "labeller": lambda step, folder: self._choice(),
            "labels": self._labels,
            "selection": self._selection,
            "scores": self._scores,
        }
        metrics: Metrics = writers[step.stage.provides](step, partial)
        fields = {
            "stage": step.stage.name,
            "role": step.stage.provides,
            "round": step.round,
            "asked": {},
            "inputs": {name: made[name].id for name in step.reads},
            "metrics": metrics.to_json(),
            "seconds": 60.0,
        }
        return commit(folder, fields).manifest

    @property
    def _rows(self) -> Rows:
        """Terminal of each image: a training image for each terminal, one for validation, one left out, heap, test."""
        heap = self.heap if self.heap_truth is None else self.heap_truth
        return np.concatenate([np.arange(len(self.taxonomy.terminals)), [0, 0], heap, self.test]).astype(np.int32)

    @property
    def _split(self) -> npt.NDArray[np.int8]:
        parts = {
            TRAIN: len(self.taxonomy.terminals),
            VALIDATION: 2,
            UNLABELLED: len(self.heap),
            TEST: len(self.test),
        }
        return np.concatenate([np.full(count, split) for split, count in parts.items()]).astype(np.int8)

    def image_names(self) -> list[bytes]:
        """Name of each image."""
        return [self.names.format(i).encode("utf-8", "surrogateescape") for i in range(len(self._rows))]

    def _data(self, step: Step, folder: Path) -> Metrics:
        rows, split = self.taxonomy.terminal_rows[self._rows], self._split
        truth = rows.copy()
        if self.heap_truth is None:
            truth[split == UNLABELLED] = UNKNOWN
        labels = np.where((split == UNLABELLED)[:, None], UNKNOWN, rows).astype(np.int32)
        status = np.full(len(rows), OK, dtype=np.uint8)
        out = len(self.taxonomy.terminals) + 1
        status[out] = DUPLICATE
        names = np.array(self.image_names())
        write(folder / INDEX, {"label": labels, "split": split, "status": status, "name": names}, {})
        write(folder / TRUTH, {"label": truth.astype(np.int32)}, {})
        write_json(folder / TAXONOMY, self.taxonomy.to_json())
        write_json(folder / "info.json", {"image_size": self.side})
        write_json(
            folder / LEFT_OUT, [{"name": self.names.format(out), "reason": f"the same as {self.names.format(0)}"}]
        )
        arrays: dict[str, Any] = {"digest": np.zeros((len(rows), 4), dtype=np.uint8)}
        if self.storage == "pixels":
            random = np.random.default_rng(0)
            arrays["pixels"] = random.integers(0, 256, (len(rows), self.side, self.side, 3), dtype=np.uint8)
        write(folder / shard_name(0), arrays, {"unreadable": "{}"})
        counts = data(labelled=len(self.taxonomy.terminals), unlabelled=len(self.heap))
        return replace(counts, test=len(self.test), duplicates=1, classes=self.taxonomy.num_classes)

    def _classifier(self, step: Step, folder: Path) -> Metrics:
        if self.curves:
            from nstudent.runs.curves import CurveFiles

            CurveFiles(self.folder).begins(f"{step.name}/member 0", self.epochs)
        atomic_write(folder / "weights", step.name.encode())
        return TrainedMetrics({HEADLINE: 0.8}, 0.01, 47_040, (self.epochs,), 1000.0)

    def _choice(self) -> Metrics:
        return choice()

    def _labels(self, step: Step, folder: Path) -> Metrics:
        paths = self.taxonomy.terminal_rows[self.heap]
        images = np.flatnonzero(self._split == UNLABELLED)
        layout = Layout.of(Outputs(self.taxonomy), None)
        # The first is the surest; each round is a little surer.
        sure = np.linspace(0.9, 0.3, len(paths), dtype=np.float32) + np.float32(0.001 * step.round)
        columns = _columns(paths, sure, layout)
        write(shard_path(folder, 0, len(paths)), {"image": images, **columns}, layout.attributes())
        write_json(folder / DESCRIPTION, {"taxonomy": self.taxonomy.to_json()})
        Selection(paths >= 0, np.ones(len(paths), dtype=np.uint8)).save(folder)
        return LabelMetrics(len(paths), {}, len(paths), len(paths), (), 0.9)

    def _selection(self, step: Step, folder: Path) -> Metrics:
        keep = self.taxonomy.terminal_rows[self.heap] >= 0
        for row, level in self.dropped:
            keep[row, level] = False
        Selection(keep, keep.any(axis=1).astype(np.uint8)).save(folder)
        return FilterMetrics("", (), {}, {}, {}, len(keep), len(keep), ())

    def _scores(self, step: Step, folder: Path) -> Metrics:
        outputs = Outputs(self.taxonomy)
        layout = Layout.of(outputs, None)
        rows = np.flatnonzero((self._split == TEST) | (self._split == VALIDATION))[: len(self.test) + 2]
        said = np.concatenate([[0, 0], self.said]).astype(np.int32)
        paths = self.taxonomy.terminal_rows[said]
        sure = np.linspace(0.95, 0.5, len(rows), dtype=np.float32)
        known = {
            "image": rows.astype(np.int64),
            "name": np.array(self.image_names())[rows],
            "split": self._split[rows],
            "truth": self.taxonomy.terminal_rows[self._rows[rows]],
        }
        name = f"predictions-{self._last('labeller')}-{0:09d}-{len(rows):09d}.h5"
        write(folder / name, known | _columns(paths, sure, layout), layout.attributes())
        scores = self.scores()
        write_json(folder / SCORES, scores.to_json())
        return ScoreMetrics(scores.final.name, scores.final.test, None)

    def scores(self) -> Scores:
        """The scores of the run."""
        steps = [step.name for step in plan(self.config) if step.stage.provides == "classifier"]
        found = {HEADLINE: Interval(0.8, 0.78, 0.82)} | FOUND
        sides = [Side(name, {name: 1.0}, 0.01, 1.0, 1, (name,), found, found) for name in (steps[-1], steps[0])]
        tree = TreeScores(1.5, 4, {level: LevelReach(0.75, 0.5) for level in self.levels})
        sides = [replace(side, on_tree=tree) for side in sides]
        bins = (ReliabilityBin(0.4, 0.5, 2), ReliabilityBin(0.9, 1.0, 4))
        gain = HeapGain(sides[0], sides[1], difference(0.014, 0.006, 0.023), 60) if self.rounds else None
        return Scores(
            final=sides[0],
            ended=None,
            confidence=0.95,
            classifiers={name: ClassifierScores(0.01, 1, 1.0, found, found, tree) for name in steps},
            heap_gain=gain,
            equal_passes=None,
            calibration={level: LevelCalibration(0.02, 0.01, bins, 0.08, bins[:1]) for level in self.levels},
            labelling={},
            pseudo_labels={},
            given_labels={},
            inconsistent=0.125,
        )


def _columns(paths: Rows, sure: npt.NDArray[np.float32], layout: Layout) -> dict[str, Any]:
    """Columns of labels as a store holds them; their distributions are not looked at."""
    columns: dict[str, Any] = {
        "path": paths.astype(np.int32),
        "confidence": np.where(paths >= 0, sure[:, None], 0).astype(np.float32),
    }
    for name, size, kept, is_top in zip(layout.levels, layout.sizes, layout.kept, layout.tops, strict=True):
        if is_top:
            columns[f"top/{name}/class"] = np.zeros((len(paths), kept), dtype=np.int16)
            columns[f"top/{name}/probability"] = np.zeros((len(paths), kept), dtype=np.float16)
        else:
            columns[f"probability/{name}"] = np.zeros((len(paths), size), dtype=np.float16)
    return columns
