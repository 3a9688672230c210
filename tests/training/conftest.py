"""The embedded digits, packed once, and trainings on them that last seconds."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from fitting import LENGTH, fit, heap_labels, supervised
from nstudent.config.file import load_config
from nstudent.config.schema import ConsistencyConfig, MetaConfig, ModelConfig, NoiseConfig, TrainingConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset
from nstudent.distributed.world import Alone
from nstudent.labels.self_ensemble import RunningAverage
from nstudent.labels.targets import GivenTargets
from nstudent.models.device import Placement
from nstudent.models.network import build_network
from nstudent.progress import Silence
from nstudent.runs.run import run_stage
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.build import Lesson, Site, build_loop
from nstudent.training.held_out import HeldOut
from nstudent.training.loop import Length, Loop, Trained
from nstudent.training.meta_learner import MetaPseudoLabels
from nstudent.training.objective import CLEAN, Objective, SelfEnsembling
from nstudent.training.own_beliefs import WEAK, OwnBeliefs, weak_noise

NOISY = NoiseConfig(
    operations=2, erase=0.3, dropout=0.3, drop_path=0.2, cutmix=0.5, cutmix_schedule="constant", mixup=0.3
)
NUM_LABELLED, NUM_HEAP = 8, 8
NUM_HELD_OUT = 12
"""Held-out images that a self-ensemble predicts: fewer a step than there are in a batch."""
SILENCE = Silence()


class KillAfter(Silence):
    """Progress that ends the training after so many steps, as Ctrl-C would."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def advance(self, amount: int, **shown: float) -> None:
        self._left -= amount
        if self._left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    config = load_config(None, ["data.labelled=60", "data.unlabelled=80", "threads=1"])
    return Dataset(Artifact(run_stage(config, "data", tmp_path_factory.mktemp("digits"))))


@pytest.fixture(scope="session")
def kill_after() -> Callable[[int], KillAfter]:
    return KillAfter


@pytest.fixture(scope="session")
def make_loop(digits: Dataset) -> Callable[..., Loop]:
    """A loop on the digits: 8 labelled images a step, and for the self-ensemble 8 of the heap beside them.

    The self-ensemble predicts some of the validation images beside them.
    """

    def make(
        length: Length,
        noise: NoiseConfig = NOISY,
        *,
        objective: Objective | None = None,
        self_ensemble: bool = False,
        own_beliefs: ConsistencyConfig | None = None,
        meta: MetaConfig | None = None,
        workers: int = 0,
        checkpoint_seconds: float = 0.0,
        device: str = "cpu",
        placement: Placement | None = None,
        say: Callable[[str], None] = SILENCE.say,
        lesson: Mapping[str, Any] | None = None,
        model: ModelConfig = ModelConfig(),  # noqa: B008 - frozen
        **settings: Any,
    ) -> Loop:
        placement = placement or Placement(torch.device(device), "float32")
        outputs, key = Outputs(digits.taxonomy), ("fit", 0)
        labelled, heap = (
            Examples(ids, GivenTargets(digits.labels[ids], outputs)) for ids in (digits.labelled, digits.unlabelled)
        )
        of_labels = supervised(outputs, (1.0, 1.0, 1.0), placement.device)
        if self_ensemble:
            averages = [RunningAverage(len(part.ids), outputs, 0.7) for part in (labelled, heap)]
            ids = digits.validation[:NUM_HELD_OUT]
            held_out = HeldOut(
                RunningAverage(NUM_HELD_OUT, outputs, 0.7),
                lambda rows: placement.images(torch.from_numpy(digits.pixels[ids[rows]])),
                *(length.steps, length.steps_per_epoch),
                key,
            )
            objective = SelfEnsembling(of_labels, *averages, weight=1.0, ramp=0.3, held_out=held_out)
        if own_beliefs is not None:
            heap = Examples(digits.unlabelled, heap_labels(digits, outputs))
            of_labels = replace(of_labels, unlabelled_weight=1.0)
            revision = OwnBeliefs(own_beliefs, outputs, digits.labels[labelled.ids], placement, Alone())
            lesson = {"revision": revision, "views": {WEAK: weak_noise(noise, own_beliefs.weak)}} | dict(lesson or {})
        if meta is not None:
            method = MetaPseudoLabels(
                config=meta,
                outputs=outputs,
                supervised=of_labels,
                num_labelled=NUM_LABELLED,
                build=lambda key: build_network(model, outputs, key, dropout=noise.dropout, drop_path=noise.drop_path),
            )
            lesson = {"method": method, "views": {WEAK: weak_noise(noise, meta.weak)}} | dict(lesson or {})
        with_heap = self_ensemble or own_beliefs is not None or meta is not None
        parts = [(labelled, NUM_LABELLED), (heap, NUM_HEAP)] if with_heap else [(labelled, NUM_LABELLED)]
        network = build_network(model, outputs, key, dropout=noise.dropout, drop_path=noise.drop_path)
        config = TrainingConfig(batch_size=NUM_LABELLED, noise=noise, **{"warmup_epochs": 1.0} | settings)
        site = Site(
            placement,
            digits.pixels,
            digits.taxonomy.levels,
            digits.name,
            workers=workers,
            checkpoint_seconds=checkpoint_seconds,
            say=say,
        )
        views = {"views": {CLEAN: None}} if self_ensemble else {}
        taught = Lesson(parts, objective or of_labels, length, **(views | dict(lesson or {})))
        return build_loop(network, taught, config, site, key)

    return make


@pytest.fixture(scope="session")
def uninterrupted(
    make_loop: Callable[..., Loop], tmp_path_factory: pytest.TempPathFactory
) -> dict[bool, tuple[Loop, Trained]]:
    """By whether it is the self-ensemble: the loop after fit() and what fit() gave."""
    outcomes = {}
    for self_ensemble in (False, True):
        loop = make_loop(LENGTH, self_ensemble=self_ensemble)
        outcomes[self_ensemble] = loop, fit(loop, tmp_path_factory.mktemp("whole"))
    return outcomes
