"""How long a run will take here: its trainings are counted, and a few steps of each network and probe timed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nstudent.config.data import USUAL_LEVELS
from nstudent.config.members import ProbeConfig
from nstudent.config.rules import probe_members
from nstudent.config.schema import Config
from nstudent.machine import available_cores
from nstudent.models.device import trainings_at_once
from nstudent.progress import Progress
from nstudent.runs.lengths import expected
from nstudent.runs.plan import plan
from nstudent.training.growth import Growth
from nstudent.training.pace import seconds_of_features, seconds_per_pass
from nstudent.training.trial import Conditions, PlannedTraining, any_outputs

_FORWARD_SHARE = 1 / 3
"""A pass forward takes about a third of one forward and backward."""
_BESIDE_THE_STEPS = 1.3
"""What noise on images, averages of weights and checkpoints add to the steps (embedded run, CPU seconds); and what
larger batches and the regression add to the features of a probe."""
_STARTING_SECONDS = 15.0
"""Libraries that are loaded, scores, the report."""
_VALIDATION_PASSES = 14
"""How often a network labels a validation image: about ten times in its training, to be chosen, and at the end."""
_TEST_PASSES = 4
"""How often it labels a test image: by itself, and as a part of the final classifier and of other pools."""
_AS_LONG_AS_THE_STUDENT = ("baseline", "student")
_TRAINED_BESIDE = ("teacher", "baseline")
_TRAINED_AGAIN = ("teacher", "baseline", "student")


@dataclass(frozen=True)
class Forecast:
    """Expected times of a run, in seconds."""

    reading: float
    trainings: dict[str, float]
    """By stage: all of its trainings in all rounds, as many at a time as this machine trains."""
    probe: float
    """Computing the features of the labelled images, and of their mirror images, that probes are fitted to."""
    labelling: float
    """Labelling the heap, and scoring."""

    @property
    def total(self) -> float:
        """All of it."""
        return _STARTING_SECONDS + self.reading + self.probe + sum(self.trainings.values()) + self.labelling

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
    validation: int
    """Images to choose by."""
    test: int
    """Images to test on."""
    seconds_each: float
    """Time to read and decode an image on one core."""


def forecast(config: Config, amounts: Amounts, progress: Progress) -> Forecast:
    """Time a few steps of each network and probe of a run, and count how many there will be.

    Args:
        config: Configuration of the run.
        amounts: How much there is to do.
        progress: Is told how far it is.

    Raises:
        ConfigError: A network or a probe cannot be built.
    """
    outputs = any_outputs(config.data.known_levels or USUAL_LEVELS[-1], config.absent)
    conditions = Conditions(config.data.image_size, outputs)
    at_once = max(1, trainings_at_once(config))
    trainings: dict[str, float] = {}
    paces: dict[tuple[str, int, int], float] = {}
    # All of them say what they think of the heap and of held-out images, each once for itself and in pools.
    image = 0.0
    stages = [step.stage for step in plan(config) if step.stage.trains]
    with progress.task("time", len(stages), "steps of the run") as task:
        for stage in stages:
            length = expected(config, stage.name, amounts.labelled, amounts.unlabelled)
            planned = list(stage.load_planned()(config))
            if length is not None and planned:
                times = [_times(each, conditions, config, paces, length.epochs) for each in planned]
                pace, full = (sum(column) / len(planned) for column in zip(*times, strict=True))
                image += _FORWARD_SHARE * full * (length.trainings if stage.provides == "classifier" else 0)
                # The baseline trains beside the teacher where there are cores for both.
                beside = at_once if stage.name in _TRAINED_BESIDE else 1
                passes = length.image_passes + _FORWARD_SHARE * length.believed
                seconds = _BESIDE_THE_STEPS * pace * passes * length.trainings / beside
                trainings[stage.name] = trainings.get(stage.name, 0.0) + seconds
            task.advance(1)
    if config.final.refit:
        # At most: what was not chosen is not trained again.
        trainings["refit"] = sum(trainings.get(stage, 0.0) for stage in _TRAINED_AGAIN)
    probes = [
        (_BESIDE_THE_STEPS * seconds_of_features(each, config.data.image_size, config), 2 - (each.mirror is False))
        for each in probe_members(config)
        if isinstance(each, ProbeConfig)
    ]
    # Probes that learn from the heap are fitted to all labelled images, too.
    beside_heap = min(config.probe.heap, amounts.unlabelled) if config.rounds else 0
    image += sum(seconds for seconds, _ in probes) * (2 if beside_heap else 1)
    passes = config.rounds * amounts.unlabelled + _VALIDATION_PASSES * amounts.validation + _TEST_PASSES * amounts.test
    images = amounts.labelled + amounts.unlabelled + amounts.validation + amounts.test
    return Forecast(
        reading=images * amounts.seconds_each / available_cores(),
        trainings=trainings,
        probe=amounts.labelled * sum(seconds * views for seconds, views in probes) * (2 if beside_heap else 1)
        + beside_heap * sum(seconds for seconds, _ in probes),
        labelling=image * passes,
    )


def _times(
    planned: PlannedTraining,
    conditions: Conditions,
    config: Config,
    known: dict[tuple[str, int, int], float],
    epochs: int,
) -> tuple[float, float]:
    """Seconds that an image takes in a training of so many epochs, and one of the size of use forward and backward."""
    full = _pace(planned, conditions, config, known)
    mean = 0.0
    for phase in Growth.of(planned.training, conditions.image_size, epochs, steps_per_epoch=1).phases:
        pace = _pace(planned, replace(conditions, image_size=phase.side_px), config, known)
        mean += phase.share * pace * (_FORWARD_SHARE if phase.late_layers_alone else 1)
    return mean, full


def _pace(
    planned: PlannedTraining, conditions: Conditions, config: Config, known: dict[tuple[str, int, int], float]
) -> float:
    """Seconds of an image forward and backward. Members of one architecture, and a student and its baseline, are timed
    once."""
    key = planned.model.model_dump_json(exclude={"pretrained"}), sum(planned.parts), conditions.image_size
    if key not in known:
        known[key] = seconds_per_pass(planned, conditions, config)
    return known[key]
