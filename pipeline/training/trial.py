"""A trial of networks before any training: what a run could only meet after hours is one line in the first seconds.

Each network is built as its training will build it, and the smallest batch that will occur goes forward and backward
through it, at the image size of the run. For large networks that is done on torch's device without memory, where it
costs nothing; what fails there is tried again on the CPU before it counts as a fault.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from nstudent.config.members import ModelConfig
from nstudent.config.schema import TrainingConfig
from nstudent.errors import ConfigError, NstudentError, summary
from nstudent.models.network import Backbone, Network, build_network
from nstudent.progress import Progress
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from nstudent.training.checkpoint import as_kept
from nstudent.training.growth import Growth
from nstudent.training.optimizer import build_optimizer, resume_optimizer
from nstudent.training.portions import ONE_VALUE
from torch import nn

_SMALL = 3e11
"""Weights times pixels of a batch up to which a pass on the CPU takes less time than one on the device without memory,
which is told of every operation in Python."""
_GRADIENT = 1e-3
"""Gradient of the weights that an optimiser is tried on."""
_STEPS = 3
"""Number of steps that an optimiser is tried for."""
_SIZES_PX = (224, 256, 384, 448, 512)
"""Sides that many networks are made for, tried in this order for the message about one that does not take its own."""


@dataclass(frozen=True)
class PlannedTraining:
    """A network that a run will train, known from its configuration alone."""

    key: str
    """Key of the configuration that describes the network, such as ``student.model``."""
    section: str
    """Section of the configuration that says how it is trained."""
    model: ModelConfig
    training: TrainingConfig
    parts: tuple[int, ...]
    """Number of images of each kind in a batch: labelled ones, and those of the heap."""


@dataclass(frozen=True)
class Conditions:
    """Under which circumstances the networks of a run are trained."""

    image_size: int
    """Side of the images, in pixels."""
    outputs: Outputs
    """What the networks are to say; shapes, not classes, matter here."""
    processes: int = 1
    """Number of processes that divide each batch."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where the networks are trained: some optimisers work on a GPU alone."""


def any_outputs(levels: Sequence[str], absent: str) -> Outputs:
    """Outputs on a tree of two paths with these levels, for a trial before the classes are known."""
    tree = Taxonomy.from_labels([[f"{side}{depth}" for depth in range(len(levels))] for side in "ab"], levels)
    return Outputs(tree, "class" if absent == "class" else "ignore")


def try_out(planned: Iterable[PlannedTraining], conditions: Conditions, progress: Progress) -> None:
    """Build every network once, send one batch forward and backward through it, and let its optimiser take a step.

    Raises:
        ConfigError: A network cannot be built or trained so; the message names the key, and a remedy that was tried.
    """
    # Members of one architecture, and a student with its baseline, differ in nothing that a trial could see.
    different: dict[tuple[object, ...], PlannedTraining] = {}
    for each in planned:
        asked = each.model.model_dump_json(), each.training.model_dump_json(), sum(each.parts)
        different.setdefault(asked, each)
    with progress.task("try", len(different), "networks") as task:
        for each in different.values():
            _try_one(each, conditions)
            task.advance(1)


def smallest_batch(parts: Sequence[int], processes: int) -> int:
    """Number of images that the process with the fewest of them has of a batch."""
    shares = (
        [size * (rank + 1) // processes - size * rank // processes for size in parts] for rank in range(processes)
    )
    return min(map(sum, shares))


def _try_one(planned: PlannedTraining, conditions: Conditions) -> None:
    batch = smallest_batch(planned.parts, conditions.processes)
    if not batch:
        raise ConfigError(
            f"{planned.section}.batch_size: {conditions.processes} processes share a batch of {sum(planned.parts)} "
            "images: raise batch_size, or start fewer processes"
        )
    try:
        network = _built(planned, planned.model, conditions)
    except NstudentError as error:
        raise ConfigError(f"{planned.key}: {_why_not_built(planned, conditions, str(error))}") from error
    wrong = _fault(network, conditions.image_size, batch)
    if wrong is None:
        _try_sizes(network, planned, conditions, batch)
        _try_optimizer(network, planned, conditions.device)
    elif wrong.startswith(ONE_VALUE):
        raise ConfigError(_too_few(planned, conditions, batch))
    else:
        raise ConfigError(_no_such_size(planned, conditions, network, batch, wrong))


def _try_sizes(network: Network, planned: PlannedTraining, conditions: Conditions, batch: int) -> None:
    """Try the other sizes that the images have while the network trains."""
    growth = Growth.of(planned.training, conditions.image_size, epochs=1, steps_per_epoch=1)
    for side in sorted({phase.side_px for phase in growth.phases} - {conditions.image_size}):
        if (wrong := _fault(network, side, batch)) is not None:
            raise ConfigError(
                f"{planned.section} trains on images of {side} px at times, which {planned.key} does not take "
                f"({wrong}): raise {planned.section}.progressive_start or {planned.section}.train_image_size, or "
                f"set {planned.section}.progressive_stages=1 and {planned.section}.train_image_size=null"
            )


def _built(planned: PlannedTraining, model: ModelConfig, conditions: Conditions) -> Network:
    noise, again = planned.training.noise, planned.training.checkpoint_activations
    return build_network(
        model, conditions.outputs, ("trial",), dropout=noise.dropout, drop_path=noise.drop_path, checkpointing=again
    )


def _why_not_built(planned: PlannedTraining, conditions: Conditions, said: str) -> str:
    undisturbed = planned.training.noise.model_copy(update={"drop_path": 0.0})
    without = replace(planned, training=planned.training.model_copy(update={"noise": undisturbed}))
    try:
        _built(without, planned.model, conditions)
    except NstudentError:
        return said
    names = " + ".join(planned.model.backbones)
    return f"'{names}' has no stochastic depth: set {planned.section}.noise.drop_path=0"


def _try_optimizer(network: Network, planned: PlannedTraining, device: torch.device) -> None:
    """Let the optimiser take its first steps, in which it meets the weights and options that it cannot work with.

    Some only begin with the first step and move the weights from the second one on.

    Only weights with a gradient take part, and get moments: the smallest one of each number of dimensions stands for
    the others, so that the step of a large network takes no more time and memory than that of a small one.
    """
    smallest: dict[int, nn.Parameter] = {}
    for weight in sorted(network.parameters(), key=lambda each: each.numel()):
        smallest.setdefault(weight.ndim, weight)
    try:
        optimizer = build_optimizer(network.to(device), planned.training, device)
        for weight in smallest.values():
            weight.grad = torch.full_like(weight, _GRADIENT)
        for _ in range(_STEPS):
            optimizer.step()
            # Some of timm's keep what no checkpoint holds, and could not go on after a kill.
            resume_optimizer(optimizer, as_kept(optimizer.state_dict()))
    except torch.OutOfMemoryError:
        # Of a GPU that others fill: what a training needs is said where it is known.
        return
    except ConfigError as error:
        raise ConfigError(f"{planned.section}.{error}") from error
    except Exception as error:
        # timm finds an optimiser by its name, and hands it what it may not take.
        raise ConfigError(
            f"{planned.section}.optimizer is '{planned.training.optimizer:.80}', which cannot train {planned.key} "
            f"({summary(error)}): adamw and sgd train any network"
        ) from error


def _fault(network: nn.Module, side: int, batch: int) -> str | None:
    """What torch or timm says of a forward and backward pass; ``None`` if nothing is wrong."""
    weights = sum(weight.numel() for weight in network.parameters())
    devices = ("cpu",) if weights * batch * side**2 <= _SMALL else ("meta", "cpu")
    said: str | None = None
    for device in devices:
        try:
            _pass(network, side, batch, device)
            return None
        except Exception as error:
            # Networks and options that do not go together raise nearly anything.
            said = summary(error) or type(error).__name__
    return said


def _pass(network: nn.Module, side: int, batch: int, device: str) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried = copy.deepcopy(network).to(device).train()
        out = tried(torch.zeros(batch, 3, side, side, device=device))
        levels = out if isinstance(out, tuple) else (out,)
        torch.stack([level.float().square().sum() for level in levels]).sum().backward()  # type: ignore[no-untyped-call]


def _too_few(planned: PlannedTraining, conditions: Conditions, batch: int) -> str:
    share = f", of which a process gets {batch}" if conditions.processes > 1 else ""
    return (
        f"{planned.section}.batch_size is {planned.training.batch_size}{share}: the batch normalisation of "
        f"{planned.key} needs more than one value for each channel, and at {conditions.image_size} px it gets one an "
        f"image: set {planned.section}.batch_size={2 * conditions.processes} or more"
    )


def _no_such_size(planned: PlannedTraining, conditions: Conditions, network: Network, batch: int, wrong: str) -> str:
    """The line about a network that does not take the images; what it proposes was tried."""
    side = conditions.image_size
    faults = {
        name: said
        for name, backbone in zip(planned.model.backbones, network.backbones, strict=False)
        if (said := _fault(backbone, side, batch)) is not None
    }
    name, said = next(iter(faults.items()), (" + ".join(planned.model.backbones), wrong))
    remedies = []
    options = {**planned.model.backbone_options, "img_size": side}
    if _takes(planned, planned.model.model_copy(update={"backbone_options": options}), conditions):
        remedies.append(f"set backbone_options={{img_size: {side}}} in {planned.key}")
    fitting = next((size for size in _sizes(network) if _fault(network, size, batch) is None), None)
    if fitting:
        remedies.append(f"set data.image_size={fitting}")
    remedies.append("choose another network")
    return f"{planned.key}: '{name}' does not take images of {side} px ({said}): {', or '.join(remedies)}"


def _sizes(network: Network) -> list[int]:
    """Sides in pixels that a network may take: those that its backbones were made for first."""
    own = [
        max(configured["input_size"][1:])
        for backbone in network.backbones
        if isinstance(backbone, Backbone) and isinstance(configured := backbone.network.pretrained_cfg, Mapping)
    ]
    return list(dict.fromkeys([*own, *_SIZES_PX]))


def _takes(planned: PlannedTraining, model: ModelConfig, conditions: Conditions) -> bool:
    """Whether the training would begin with this network in place of its own."""
    batch = smallest_batch(planned.parts, conditions.processes)
    try:
        return _fault(_built(planned, model, conditions), conditions.image_size, batch) is None
    except NstudentError:
        return False
