"""How long a run will still take, from the work that is done and the work that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nstudent.config.schema import Config
from nstudent.errors import ArtifactError
from nstudent.listener import NoListener
from nstudent.runs.lengths import Expected, expected
from nstudent.runs.stage import Step
from nstudent.runs.step_metrics import DataMetrics
from nstudent.storage.artifact import Manifest

_FEWEST_SECONDS = 2.0
"""After less nothing is said of the time that is left: the first epochs load what the others use."""
_FORWARD_SHARE = 1 / 3
"""A pass forward takes about a third of one forward and backward."""
_SCORED = 3
"""How often every classifier looks at a held-out image at the end: by itself, and about twice in pools."""


class Remaining(NoListener):
    """Listener that knows how much of the work of a run is done, and from that how long the rest takes.

    Work is counted in passes of images through networks, times what a pass costs in the networks of a stage: as the
    steps that are made report it, and until then as in those that are known.
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
        self._looked: dict[str, tuple[float, float]] = {}
        """By step that looks at images with classifiers, the share that is done, and what an earlier call has done."""
        self._made: set[str] = set()
        self._found: set[str] = set()
        """Steps that were made before the first work of this call."""
        self._cost: dict[str, float] = {}
        """By stage, billions of multiply-adds of an image pass of its trainings, as far as they are known."""
        self._forward: dict[str, float] = {}
        """By step, billions of multiply-adds of its classifier for one image, as far as they are known."""
        self._data: DataMetrics | None = None
        self._began: float | None = None

    def begins(self, training: str, behind: Sequence[Mapping[str, float]]) -> None:
        """Take the epochs behind a training as done; those of its first beginning were done before."""
        self._epochs[training] = len(behind)
        self._behind.setdefault(training, len(behind))
        self._begin(training)

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        """Count an epoch."""
        self._epochs[training] = int(entry["epoch"])

    def looks(self, step: str, share: float) -> None:
        """Take in that this share of a step is done, 0 to 1; a step that trains networks is known by its epochs."""
        if step in self._steps and self._is_looking(self._steps[step]):
            _, before = self._looked.get(step, (share, share))
            self._looked[step] = share, before
            self._begin(step)

    def made(self, step: str, metrics: Mapping[str, Any]) -> None:
        """Count a step as done, and take in what its trainings cost."""
        self._made.add(step)
        if step in self._steps and self._steps[step].stage.provides == "data":
            with suppress(ValueError):
                self._data = DataMetrics.from_json(metrics)
        gmacs, passes = metrics.get("training_gmacs"), metrics.get("image_passes")
        if step in self._steps and isinstance(gmacs, float) and isinstance(passes, int) and passes > 0:
            self._cost[self._steps[step].stage.name] = gmacs / passes
        if isinstance(of_one := metrics.get("gmacs"), float):
            self._forward[step] = of_one

    def seconds_left(self) -> float | None:
        """Until the steps are made, about; ``None`` if too little is known."""
        if self._began is None or (seconds := time.monotonic() - self._began) < _FEWEST_SECONDS:
            return None
        work = self._work()
        shares = {name: self._shares(name) for name in work}
        done = sum(work[name] * (now - before) for name, (now, before) in shares.items())
        left = sum(work[name] * (1 - now) for name, (now, _) in shares.items())
        return left * seconds / done if done > 0 else None

    def _begin(self, where: str) -> None:
        """Begin to count the time, at the first work in a step or one of its trainings."""
        if self._began is None:
            self._began = time.monotonic()
            step = where.partition("/")[0]
            self._found = {name for name in self._steps if (self._run_dir / name).exists() and name < step}
            for name in sorted(self._found - self._made):
                with suppress(ArtifactError):
                    self.made(name, Manifest.read(self._run_dir / name).metrics)

    def _work(self) -> dict[str, float]:
        """By step, its work: passes of images, times the cost of one; empty before the data is there."""
        found: dict[str, float] = {}
        forward = 0.0
        for name, step in self._steps.items() if self._data else ():
            # Of a probe, which is not trained, nothing is known until it is there.
            of_step = self._forward.get(name)
            if (trainings := self._trainings(step)) is not None:
                cost = self._cost_of(step.stage.name)
                passes = trainings.image_passes + _FORWARD_SHARE * trainings.believed
                found[name] = trainings.trainings * passes * cost
                of_step = cost * trainings.trainings if of_step is None else of_step
            elif self._is_looking(step):
                found[name] = self._images(step) * forward
            # Only classifiers are looked with later.
            if of_step is not None and step.stage.provides == "classifier":
                forward += _FORWARD_SHARE * of_step
        return found

    def _trainings(self, step: Step) -> Expected | None:
        """The trainings of a step; ``None`` if it trains nothing, or it is not known how many images there are."""
        images = (self._data.labelled, self._data.unlabelled) if self._data else None
        return expected(self._config, step.stage.name, *images) if images else None

    def _is_looking(self, step: Step) -> bool:
        """Whether classifiers look at images in a step, and nothing is trained."""
        return step.stage.provides in ("labeller", "labels", "scores")

    def _images(self, step: Step) -> int:
        """Number of images that every classifier looks at in a step."""
        assert self._data is not None
        held_out = self._data.validation, self._data.validation + self._data.test
        by_role = {"labeller": held_out[0], "labels": self._data.unlabelled, "scores": _SCORED * held_out[1]}
        return by_role[step.stage.provides]

    def _cost_of(self, stage: str) -> float:
        known = self._cost.values()
        # The baseline has the network of the student.
        same = self._cost.get("baseline" if stage == "student" else stage)
        return same or (sum(known) / len(known) if known else 1.0)

    def _shares(self, step: str) -> tuple[float, float]:
        """The share of the work of a step that is done, 0 to 1, and the share that was done before this call."""
        if step in self._found:
            return 1.0, 1.0
        trainings = self._trainings(self._steps[step])
        if trainings is None:
            now, before = self._looked.get(step, (0.0, 0.0))
        else:
            now, before = (
                min(1.0, sum(count for training, count in counts.items() if training.split("/")[0] == step) / epochs)
                for counts in (self._epochs, self._behind)
                for epochs in (trainings.epochs * trainings.trainings,)
            )
        return (1.0 if step in self._made else now), before


def in_words(seconds: float) -> str:
    """A time as a person says it, such as ``about 12 min``."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
