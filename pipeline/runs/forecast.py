"""How long a run will take on this machine: its trainings are counted, and a few steps of each network timed."""

from __future__ import annotations

from dataclasses import dataclass

from nstudent.config.data import USUAL_LEVELS
from nstudent.config.schema import Config
from nstudent.machine import available_cores
from nstudent.models.device import trainings_at_once
from nstudent.progress import Progress
from nstudent.runs.lengths import expected
from nstudent.runs.plan import plan
from nstudent.training.pace import seconds_per_pass
from nstudent.training.trial import Conditions, PlannedTraining, any_outputs

_FORWARD_SHARE = 1 / 3
"""A pass forward takes about a third of one forward and backward."""
_BESIDE_THE_STEPS = 1.3
"""What noise on images, averages of weights and checkpoints add to the steps (embedded run, CPU seconds)."""
_STARTING_SECONDS = 15.0
"""Libraries that are loaded, scores, the report."""
_HELD_OUT_PASSES = 12
"""How often a held-out image is scored in a run: about ten times in each training, and at the end."""
_AS_LONG_AS_THE_STUDENT = ("baseline", "student")
_TRAINED_BESIDE = ("teacher", "baseline")


@dataclass(frozen=True)
class Forecast:
    """Expected times of a run, in seconds."""

    reading: float
    trainings: dict[str, float]
    """By stage: all of its trainings in all rounds, as many at a time as this machine trains."""
    labelling: float
    """Labelling the heap, and scoring."""

    @property
    def total(self) -> float:
        """All of it."""
        return _STARTING_SECONDS + self.reading + sum(self.trainings.values()) + self.labelling

    @property
    def like_the_student(self) -> float:
        """The trainings whose length is the student's."""
        return sum(self.trainings.get(stage, 0.0) for stage in _AS_LONG_AS_THE_STUDENT)


@dataclass(frozen=True)
class Amounts:
    """How much there is to do."""

    labelled: int
    """Images to train on."""
    unlabelled: int
    held_out: int
    """Images to validate and to test on."""
    seconds_each: float
    """Time to read and decode an image on one core."""


def forecast(config: Config, amounts: Amounts, progress: Progress) -> Forecast:
    """Time a few steps of each network of a run, and count how many there will be.

    Args:
        config: Configuration of the run.
        amounts: How much there is to do.
        progress: Is told how far it is.

    Raises:
        ConfigError: A network cannot be built.
    """
    outputs = any_outputs(config.data.known_levels or USUAL_LEVELS[-1], config.absent)
    conditions = Conditions(config.data.image_size, outputs)
    at_once = max(1, trainings_at_once(config))
    trainings: dict[str, float] = {}
    paces: dict[tuple[str, int], float] = {}
    stages = [step.stage for step in plan(config) if step.stage.trains]
    with progress.task("time", len(stages), "steps of the run") as task:
        for stage in stages:
            length = expected(config, stage.name, amounts.labelled, amounts.unlabelled)
            planned = list(stage.load_planned()(config))
            if length is not None and planned:
                pace = sum(_pace(each, conditions, config, paces) for each in planned) / len(planned)
                # The baseline trains beside the teacher where there are cores for both.
                beside = at_once if stage.name in _TRAINED_BESIDE else 1
                seconds = _BESIDE_THE_STEPS * pace * length.image_passes * length.trainings / beside
                trainings[stage.name] = trainings.get(stage.name, 0.0) + seconds
            task.advance(1)
    slowest = max(paces.values(), default=0.0)
    passes = 2 * config.rounds * amounts.unlabelled + _HELD_OUT_PASSES * amounts.held_out
    images = amounts.labelled + amounts.unlabelled + amounts.held_out
    return Forecast(images * amounts.seconds_each / available_cores(), trainings, _FORWARD_SHARE * slowest * passes)


def _pace(
    planned: PlannedTraining, conditions: Conditions, config: Config, known: dict[tuple[str, int], float]
) -> float:
    """Members of one architecture, and a student and its baseline, are timed once."""
    key = planned.model.model_dump_json(exclude={"pretrained"}), sum(planned.parts)
    if key not in known:
        known[key] = seconds_per_pass(planned, conditions, config)
    return known[key]
