"""How far a run is, and how long it will still take: told beside the work, and kept for who looks at the folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstudent.config.schema import Config
from nstudent.errors import ArtifactError
from nstudent.listener import NoListener
from nstudent.runs.lengths import Expected, expected
from nstudent.runs.stage import Step
from nstudent.runs.step_metrics import DataMetrics
from nstudent.storage.artifact import Manifest
from nstudent.storage.files import read_json, remove_file, write_json
from nstudent.storage.json_record import JsonRecord
from nstudent.storage.lock import is_held

PROGRESS = "progress.json"
"""In the run folder while a run trains: how far it is."""
_KEEP_SECONDS = 1.0
"""It is written, and the time that is left estimated anew, at most so often."""
_FORWARD_SHARE = 1 / 3
"""Cost of a pass forward, in passes forward and backward."""
_FEWEST_SECONDS = 2.0
"""After less nothing is said of the time that is left: the first epochs load what the others use."""


@dataclass(frozen=True)
class UnderWay(JsonRecord):
    """How far a run is that another process makes."""

    training: str
    """The training of which an epoch ended last."""
    epoch: int
    epochs: int | None
    """``None`` if it is not known before how many there are."""
    loss: float | None
    validation: float | None
    """The last score on validation that was measured in this training; ``None`` if none was yet."""
    seconds_left: float | None
    """Until the end of the run, about; ``None`` if too little is known."""


class Remaining(NoListener):
    """Listener that knows how much of the work of a run is done, and from that how long the rest takes.

    Work is counted in image passes, times what a pass costs in the networks of a stage: as the steps that are made
    report it, and until then as in those that are known.
    """

    def __init__(self, config: Config, steps: Sequence[Step], run_dir: Path) -> None:
        """Follow the making of some steps in ``run_dir``."""
        self._config = config
        self._steps = {step.name: step for step in steps}
        self._run_dir = run_dir
        self._epochs: dict[str, int] = {}
        """By training, the number of epochs that lie behind it."""
        self._behind: dict[str, int] = {}
        """By training, those of them that an earlier call has done."""
        self._validation: dict[str, float] = {}
        self._made: set[str] = set()
        self._found: set[str] = set()
        """Steps that were made before the first training began."""
        self._cost: dict[str, float] = {}
        """By stage, billions of multiply-adds of an image pass, as far as they are known."""
        self._data: DataMetrics | None = None
        self._began: float | None = None
        self._kept = self._figured = 0.0
        self._figures: dict[str, float] = {}

    def begins(self, training: str, behind: Sequence[Mapping[str, float]]) -> None:
        """Take the epochs behind a training as done; those of its first beginning were done before."""
        self._epochs[training] = len(behind)
        self._behind.setdefault(training, len(behind))
        for scored in [entry["validation"] for entry in behind if "validation" in entry][-1:]:
            self._validation[training] = scored
        if self._began is None:
            self._began = time.monotonic()
            there = {name for name in self._steps if (self._run_dir / name).exists() and name < training}
            self._found = there
            for name in sorted(there - self._made):
                with suppress(ArtifactError):
                    self.made(name, Manifest.read(self._run_dir / name).metrics)

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        """Count an epoch, and keep how far the run is."""
        self._epochs[training] = int(entry["epoch"])
        if "validation" in entry:
            self._validation[training] = entry["validation"]
        if time.monotonic() - self._kept >= _KEEP_SECONDS:
            self._kept = time.monotonic()
            write_json(self._run_dir / PROGRESS, self._under_way(training, entry).to_json())

    def made(self, step: str, metrics: Mapping[str, Any]) -> None:
        """Count a step as done, and take in what its trainings cost."""
        self._made.add(step)
        if step in self._steps and self._steps[step].stage.provides == "data":
            with suppress(ValueError):
                self._data = DataMetrics.from_json(metrics)
        gmacs, passes = metrics.get("training_gmacs"), metrics.get("image_passes")
        if step in self._steps and isinstance(gmacs, float) and isinstance(passes, int) and passes > 0:
            self._cost[self._steps[step].stage.name] = gmacs / passes

    def end(self) -> None:
        """Remove what was kept: the run has ended."""
        remove_file(self._run_dir / PROGRESS)

    def seconds_left(self) -> float | None:
        """Until the steps are made, about; ``None`` if too little is known."""
        if self._began is None or (seconds := time.monotonic() - self._began) < _FEWEST_SECONDS:
            return None
        plans = self._expected
        work = {name: self._work(name, each) for name, each in plans.items()}
        shares = {name: self._shares(name, each) for name, each in plans.items()}
        done = sum(work[name] * (now - before) for name, (now, before) in shares.items())
        left = sum(work[name] * (1 - now) for name, (now, _) in shares.items())
        return left * seconds / done if done > 0 else None

    def figures(self) -> dict[str, float]:
        """The minutes to the end of the run, for a training to show beside its own figures; empty if unknown."""
        # Asked after every training step, which takes a GPU less than a millisecond.
        now = time.monotonic()
        if now - self._figured >= _KEEP_SECONDS:
            self._figured = now
            left = self.seconds_left()
            # When all trainings are done, scoring still takes time that is not known: better no figure than a 0.
            self._figures = {"min to end": round(left / 60, 1)} if left else {}
        return self._figures

    def _under_way(self, training: str, entry: Mapping[str, float]) -> UnderWay:
        plan, left = self._expected.get(training.split("/")[0]), self.seconds_left()
        loss = entry.get("loss")
        return UnderWay(
            training=training,
            epoch=int(entry["epoch"]),
            epochs=plan.epochs if plan and not plan.is_mixed else None,
            loss=loss if loss is not None and abs(loss) < float("inf") else None,
            validation=self._validation.get(training),
            seconds_left=None if left is None else round(left, 1),
        )

    @property
    def _expected(self) -> dict[str, Expected]:
        """By step, its trainings; empty before the data is there."""
        if not self._data:
            return {}
        images = self._data.labelled, self._data.unlabelled
        found = {name: expected(self._config, step.stage.name, *images) for name, step in self._steps.items()}
        return {name: each for name, each in found.items() if each}

    def _work(self, step: str, plan: Expected) -> float:
        """The work of a step: image passes, times the cost of one."""
        stage, known = self._steps[step].stage.name, self._cost.values()
        # The baseline has the network of the student.
        like = "baseline" if stage == "student" else stage
        same = self._cost.get(like)
        # What a stage itself has reported of its passes holds those forward, too.
        believed = 0.0 if same and like == stage else _FORWARD_SHARE * plan.believed
        passes = plan.image_passes + believed
        return plan.trainings * passes * (same or (sum(known) / len(known) if known else 1.0))

    def _shares(self, step: str, plan: Expected) -> tuple[float, float]:
        """The share of the work of a step that is done, 0 to 1, and the share that was done before this call."""
        if step in self._found:
            return 1.0, 1.0
        now, before = (
            min(
                1.0,
                sum(count for training, count in counts.items() if training.split("/")[0] == step)
                / (plan.epochs * plan.trainings),
            )
            for counts in (self._epochs, self._behind)
        )
        return (1.0 if step in self._made else now), before


def under_way(run_dir: Path) -> UnderWay | None:
    """How far a run is that a process makes now; ``None`` if none does, or it has not begun to train."""
    if not (run_dir / PROGRESS).exists() or not is_held(run_dir):
        return None
    try:
        return UnderWay.from_json(read_json(run_dir / PROGRESS))
    except (ArtifactError, ValueError):
        # It has ended in this moment.
        return None


def in_words(seconds: float) -> str:
    """A time as a person says it, such as ``about 12 min``."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
