"""What the stages that train have in common: the data, the device, and how a network is put to the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from nstudent.config.members import MemberConfig
from nstudent.config.schema import ConsistencyConfig, FilterConfig, ModelConfig, StudentConfig, TrainingConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset, Ids
from nstudent.data.resident import fits_beside_training
from nstudent.distributed.ranks import gathered_rows
from nstudent.errors import ConfigError
from nstudent.evaluation.ensemble_calibration import calibrated
from nstudent.evaluation.out_of_fold import OutOfFold
from nstudent.evaluation.validation import Validation
from nstudent.labels.self_ensemble import RunningAverage
from nstudent.labels.targets import GivenTargets
from nstudent.models.cost import check_final_cost, gmacs
from nstudent.models.device import Placement, loader_workers, noises_in_batches
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import Walk
from nstudent.models.members import FitInputs, Fitted
from nstudent.models.network import Network, build_network
from nstudent.models.recipe import Recipe
from nstudent.randomness import Key
from nstudent.runs.lengths import filter_length, mixed_batch, student_length
from nstudent.runs.stage import Context
from nstudent.storage.files import reserve
from nstudent.tables import chosen
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import LabelArray
from nstudent.training.build import Lesson, Site, build_loop
from nstudent.training.growth import Growth
from nstudent.training.held_out import HeldOut
from nstudent.training.loop import Length, Trained
from nstudent.training.losses import build_losses
from nstudent.training.objective import CoarsePrior, Supervised
from nstudent.training.own_beliefs import OwnBeliefs
from nstudent.training.pixels import packing_gains, training_pixels
from nstudent.training.schedules import LEVEL_SCHEDULES
from torch import Tensor, nn

_CHECKPOINT_COPIES = 13
"""How often a network's bytes lie on disk: weights, their average and two moments of the optimiser, in two generations
and one being written, and the weights that are left at the end."""


class Trainer:
    """Trains and assesses networks for one step."""

    def __init__(self, context: Context, dataset: Dataset) -> None:
        self.dataset = dataset
        self.placement = Placement.from_config(context.config)
        self._config = context.config
        self._scratch = context.scratch
        self._progress = context.progress
        self._world = context.world
        self._listener = context.listener
        self._stop = context.session.stop
        self._full_name = context.training
        self.walk: Walk = context.walks.batches
        """Walks through images with a classifier of the step; what it says is kept until the step is there."""
        batch_size = context.config.evaluate.batch_size
        self._validation = Validation(dataset, batch_size, context.folder, context.session)

    @cached_property
    def outputs(self) -> Outputs:
        """What the networks of this run are to say."""
        return Outputs(self.dataset.taxonomy, self._config.absent)

    @cached_property
    def _site(self) -> Site:
        """Where this step's trainings run."""
        return Site(
            placement=self.placement,
            pixels=training_pixels(self._config, self.dataset, self.placement.device),
            levels=self.dataset.taxonomy.levels,
            name_of=self.dataset.name,
            noises_in_batches=noises_in_batches(self._config),
            workers=loader_workers(self._config, self.dataset.pixels.are_mapped),
            checkpoint_seconds=60 * self._config.checkpoint_minutes,
            world=self._world,
            say=self._progress.say,
        )

    def recipe(self, members: Sequence[MemberConfig]) -> Recipe:
        """How an ensemble of these members is described."""
        return Recipe.of(self._config, self.dataset.taxonomy, members)

    def ensemble(self, members: Sequence[ModelConfig], networks: Sequence[nn.Module]) -> Ensemble:
        """An ensemble of trained networks; ``members`` describe them, in their order."""
        return Ensemble.of_networks(self.recipe(members), networks, self.placement)

    def calibrated(self, ensemble: Ensemble, out_of_fold: OutOfFold | None = None) -> Ensemble:
        """The same ensemble, calibrated on the validation images, or if its members were cross-fitted also on what each
        says of its own fold: first each member, then their pool."""
        return calibrated(ensemble, self.dataset, self._config.evaluate.batch_size, out_of_fold, self.walk)

    def labelled(self, labels: LabelArray | None = None, ids: Ids | None = None) -> Examples:
        """The labelled training images, or some of them by id; ``labels`` (images, levels) replaces what is given."""
        ids = self.dataset.labelled if ids is None else ids
        given = self.dataset.labels[ids] if labels is None else labels
        return Examples(ids, GivenTargets(given, self.outputs))

    def supervised(
        self,
        training: TrainingConfig,
        unlabelled_weight: float = 0.0,
        heap_shares: Sequence[float] | None = None,
        ids: Ids | None = None,
    ) -> Supervised:
        """The loss on labels, with their class weights, and on pseudo-labels, whose copies are balanced instead.

        Args:
            training: How the network is trained.
            unlabelled_weight: Weight of the pseudo-labels' loss.
            heap_shares: Share of the shown images of the heap that could have a label at each level (``Supervised``).
            ids: Labelled images that are trained on; ``None``: all.
        """
        labels = self.dataset.labels[self.dataset.labelled if ids is None else ids]
        of_labels, of_heap = build_losses(training, labels, self.outputs, self.placement.device)
        return Supervised(
            labelled=of_labels,
            heap=of_heap,
            level_weights=training.level_weights or (1.0,) * self.dataset.taxonomy.num_levels,
            unlabelled_weight=unlabelled_weight,
            heap_shares=heap_shares,
            coarse_prior=CoarsePrior.of(training.coarse_prior_weight, labels, self.outputs, self.placement.device),
            level_schedule=chosen(LEVEL_SCHEDULES, training.level_schedule, "level_schedule"),
        )

    def own_beliefs(self, config: ConsistencyConfig, labels: LabelArray) -> OwnBeliefs:
        """What a student goes on with; ``labels``: (images, levels), those that the labelled images are taught."""
        return OwnBeliefs(config, self.outputs, labels, self.placement, self._world)

    def mixed_batch(self, training: FilterConfig | StudentConfig) -> tuple[int, int]:
        """Number of labelled images in a batch of a filter or student, and of pseudo-labelled ones."""
        return mixed_batch(training, len(self.dataset.labelled), len(self.dataset.unlabelled))

    def filter_length(self) -> Length:
        """How long an iteration of the filter trains."""
        return Length(*filter_length(self._config.filter, len(self.dataset.labelled), len(self.dataset.unlabelled)))

    def student_length(self) -> Length:
        """How long a student trains, and its baseline with it: known before any label is made."""
        return Length(*student_length(self._config.student, len(self.dataset.labelled), len(self.dataset.unlabelled)))

    def build(self, model: ModelConfig, training: TrainingConfig, key: Key) -> Network:
        """A new network with the noise of its training built in."""
        outputs, noise, again = self.outputs, training.noise, training.checkpoint_activations
        return build_network(model, outputs, key, dropout=noise.dropout, drop_path=noise.drop_path, checkpointing=again)

    def check_final_cost(self, teacher: float) -> None:
        """Refuse, before anything is trained, a limit for the final classifier under which there is none.

        Args:
            teacher: Billions of multiply-adds of the teacher for one image.

        Raises:
            ConfigError: The teacher, its soup and the student's network, as far as there are these, all cost more.
        """
        limit, student = self._config.final.max_gmacs, self._config.student
        costs = {"the teacher": teacher}
        if self._config.teacher.soup != "none":
            costs["the soup of its members"] = teacher / len(self._config.teacher.members)
        if limit is not None and self._config.rounds:
            network = self.build(student.model, student, ("cost",))
            costs["the student"] = gmacs([network], self.dataset.image_size)
        check_final_cost(costs, limit)

    def gmacs_in_training(self, ensemble: Ensemble, training: TrainingConfig, epochs: int) -> float:
        """Billions of multiply-adds of one image going forward, on average over a training in which images may grow."""
        growth = Growth.of(training, self.dataset.image_size, epochs, steps_per_epoch=1)
        return growth.mean(lambda side: sum(member.gmacs(side) for member in ensemble.members))

    def train(
        self,
        name: str,
        model: ModelConfig,
        training: TrainingConfig,
        lesson: Lesson,
        key: Key,
        start: Network | None = None,
    ) -> Trained:
        """Train one network to the end, and with what follows its lesson, or go on with it from its checkpoint.

        Args:
            name: Name of the training among those of its step; its checkpoint is kept under it.
            model: The network.
            training: How it is trained.
            lesson: What it is to learn.
            key: Decides its first weights (unless the lesson says which), the order of its images, and all noise.
            start: A network with its first weights; ``None``: they are drawn, or pretrained.

        Raises:
            ConfigError: A batch has fewer images than the run has processes.
            TrainingError: A loss or gradient is not finite.
            StoppedError: The run was asked to stop; a checkpoint of the last step is on disk.
        """
        processes = self._world.size
        if sum(size for _, size in lesson.parts) < processes:
            raise ConfigError(f"{name}: {processes} processes share a batch of fewer images: raise batch_size")
        network = self.build(model, training, lesson.first_weights or key)
        if start is not None:
            network.load_state_dict(start.state_dict())
        # A method of its own has a second network.
        copies = _CHECKPOINT_COPIES * (1 if lesson.method is None else 2)
        reserve(self._scratch, copies * sum(t.nbytes for t in network.state_dict().values()))
        growth = Growth.of(training, self.dataset.image_size, lesson.length.epochs, lesson.length.steps_per_epoch)
        if not growth.is_steady:
            lesson = replace(lesson, weakened=growth.weakened, side_at=growth.side_at)
        loop = build_loop(network, lesson, training, self._site, key)
        checkpoint = self._scratch / f"{name.replace(' ', '-')}.safetensors"

        def validate(network: nn.Module) -> float:
            assert isinstance(network, Network)
            # Of several processes all stop together, after a batch: none of them may leave on its own.
            with self._stop.patiently(self._world.size > 1):
                return self.validation_score(self.ensemble([model], [network]))

        tell = partial(self._listener.epoch, self._full_name(name))
        begins = partial(self._listener.begins, self._full_name(name))
        with self._stop.patiently():
            held_out = None if lesson.learns_validation else validate
            trained = loop.fit(checkpoint, self._progress, name, held_out, tell, begins)
        if said := packing_gains(name, trained.data_wait, self.dataset):
            self._progress.say(said)
        if lesson.then is None:
            return trained
        then, later = lesson.then, (*key, lesson.then.name)
        return trained.followed_by(
            self.train(f"{name} {then.name}", model, then.training, then.lesson, later, trained.network)
        )

    def fit_inputs(self, name: str, training: TrainingConfig, lesson: Lesson, key: Key) -> FitInputs:
        """What a member of any kind is fitted with; the arguments are those of ``train``."""
        return FitInputs(
            name=name,
            examples=lesson.parts[0][0],
            pixels=self.dataset.pixels,
            outputs=self.outputs,
            placement=self.placement,
            key=key,
            progress=self._progress,
            networks=_NetworkTraining(self, name, training, lesson, key),
        )

    def validation_score(self, ensemble: Ensemble) -> float:
        """The headline score on the validation images: the leader's, in every process.

        Raises:
            StoppedError: One of the processes was asked to stop; all of them stop after the same batch.
        """
        return self._validation.score(ensemble)

    def running_average(self, num_rows: int, momentum: float) -> RunningAverage:
        """Averages of a network's predictions for so many images: on the device that trains, where they fit there."""
        outputs, device = self.outputs, self.placement.device
        fits = fits_beside_training(num_rows * sum(outputs.sizes) * torch.float32.itemsize, device)
        return RunningAverage(num_rows, outputs, momentum, device if fits else None)

    def held_out(self, ids: Ids, momentum: float, length: Length, key: Key) -> HeldOut:
        """Images, by id, that a training of this length predicts and does not learn from."""
        pixels = self._site.pixels

        def fetch(rows: Ids) -> Tensor:
            images = pixels[ids[rows]]
            return self.placement.images(images if isinstance(images, Tensor) else torch.from_numpy(images))

        average = self.running_average(len(ids), momentum)
        return HeldOut(average, fetch, length.steps, length.steps_per_epoch, key)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows, (rows, ...), of every process end to end."""
        return gathered_rows(self._world, rows)


@dataclass(frozen=True)
class _NetworkTraining:
    """The training of one member, if that is a network."""

    trainer: Trainer
    name: str
    training: TrainingConfig
    lesson: Lesson
    key: Key

    def build(self, settings: ModelConfig) -> Network:
        """The network as it is before its first step."""
        return self.trainer.build(settings, self.training, self.lesson.first_weights or self.key)

    def train(self, settings: ModelConfig) -> Fitted:
        """Train the network to the end, or go on from its checkpoint."""
        trained = self.trainer.train(self.name, settings, self.training, self.lesson, self.key)
        (member,) = self.trainer.ensemble([settings], [trained.network]).members
        return Fitted(member, tuple(trained.history), trained.spent)
