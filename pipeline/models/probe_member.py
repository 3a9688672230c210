"""A probe as a member of an ensemble: fitted in seconds to features that are not trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from nstudent.config.members import ProbeConfig
from nstudent.data.dataset import Ids
from nstudent.errors import ArtifactError, ConfigError, RefusedError, summary
from nstudent.labels.path_tree import PathTree, logarithms
from nstudent.models.cost import Spent, gmacs
from nstudent.models.device import Placement
from nstudent.models.kernel_ridge import KernelRidge, most_anchors
from nstudent.models.logistic import Logistic
from nstudent.models.members import FitInputs, Fitted, HeldOut, Levels, building_limit, read_tensors
from nstudent.models.probe import Features, Probe, build_features
from nstudent.models.regression import Chosen, Matrix, Points, Regression, choose, mirrored
from nstudent.models.self_training import Choice, OfLabels, SelfTrained, said_held_out
from nstudent.progress import Progress
from nstudent.randomness import Key, generator
from nstudent.taxonomy.outputs import Outputs
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

_AT_ONCE = 64
"""Images whose features are computed together."""
_MOST_IMAGES = 50_000
"""Labelled images that a probe is fitted to; of more, so many are drawn."""
_LEAST_MASS = 1e-6


class _Distributions(nn.Module):
    """A probe, and the tree on which the scores of paths become distributions per level."""

    def __init__(self, probe: nn.Module, tree: PathTree) -> None:
        super().__init__()
        self.probe = probe
        self._tree = tree

    def forward(self, images: Tensor) -> Levels:
        paths = self.probe(images).softmax(dim=1)
        # Kept where it was used last: a member stays on one device.
        tree = self._tree = self._tree.to(paths.device)
        return tuple(_normalised(level) for level in tree.marginals(paths))


class ProbeMember:
    """A fitted probe; a ``Member``."""

    def __init__(self, probe: Probe, outputs: Outputs, placement: Placement) -> None:
        """Put a probe to its device; its paths are those that a model with these outputs can say."""
        self.probe = placement.put(probe).eval()
        self._distributions = _Distributions(self.probe, PathTree.of(outputs))

    def distributions(self, images: Tensor) -> Levels:
        """What it says of (images, 3, side, side): per level, (images, outputs)."""
        # In full precision: how images are put together in batches is not to be seen in the numbers.
        levels: Levels = self._distributions(images)
        return levels

    def module(self) -> nn.Module:
        """The probe with its tree; see ``Exportable``."""
        return self._distributions

    def compile(self) -> None:
        """Nothing: most of the time goes into products of matrices."""

    def gmacs(self, image_size: int) -> float:
        """Multiply-adds for one image, counted; see ``Member``."""
        return gmacs([self.probe], image_size)

    def tensors(self) -> Mapping[str, Tensor]:
        """The weights of the regression, and of the backbone."""
        return self.probe.state_dict()


class ProbeKind:
    """The ``Kind`` of probes."""

    resumes = False

    def cost(self, settings: ProbeConfig, inputs: FitInputs) -> Callable[[int], float]:
        """Multiply-adds of the features, counted, and of the largest regression there can be on them."""
        features, paths = build_features(settings, load_pretrained=False), len(PathTree.of(inputs.outputs).terminals)
        is_linear = isinstance(_regression(settings, inputs.key), Logistic)
        anchors = 0 if is_linear else most_anchors(len(inputs.examples.ids), len(inputs.heap))
        return partial(gmacs, [Probe(features, paths, anchors)])

    def fit(self, settings: ProbeConfig, inputs: FitInputs) -> Fitted:
        """Fit a regression to the features of the labelled images; its strength is chosen on parts of them.

        Raises:
            ConfigError: The backbone cannot be built, or does not fit the images.
        """
        features = build_features(settings)
        inputs.placement.put(features)
        rows = _rows(inputs)
        ids = inputs.examples.ids[rows]
        found = _found(features, inputs, ids, flip=False)
        plain = Points(found, _possible(inputs, rows), np.arange(len(ids)))
        regression = _regression(settings, inputs.key)
        looked = [plain]
        if settings.mirror is not False:
            both = mirrored(plain, _found(features, inputs, ids, flip=True))
            looked = [both] if settings.mirror else [plain, both]
        chosen = [(choose(regression, points, inputs.key), points) for points in looked]
        best, points = max(chosen, key=lambda each: each[0].likelihood)
        best = replace(best, regression=best.regression.prepared(points.features))
        choice: Choice = OfLabels(best)
        if len(inputs.heap):
            choice = SelfTrained.of(best, points, _found(features, inputs, inputs.heap, flip=False), inputs.key)
        solution = choice.solve(points).sharpened(choice.chosen.sharpness)
        asked = settings.mirror is None
        _say(inputs, best, choice.chosen, points is not plain)
        member = ProbeMember(Probe.of(features, solution), inputs.outputs, inputs.placement)
        seen = len(ids) * (1 if settings.mirror is False else 2) + len(inputs.heap)
        cost = gmacs([features], inputs.images(ids[:1]).shape[-1])
        return Fitted(
            member,
            spent=Spent(training_gmacs=round(seen * cost, 3)),
            mirrored=not chosen[1][0].is_refuted_by(chosen[0][0]) if asked else settings.mirror,
            held_out=None if inputs.held_out == "none" else _held_out(choice, points, inputs, ids),
        )

    def load(self, settings: ProbeConfig, path: Path, outputs: Outputs, link: str, placement: Placement) -> ProbeMember:
        """Build the probe around what was saved of it; see ``Kind``."""
        anchors = _anchors(path)
        with building_limit(path):
            features = build_features(settings, load_pretrained=False)
            probe = Probe(features, len(PathTree.of(outputs).terminals), anchors)
        probe.load_state_dict(read_tensors(path, probe.state_dict(), f"a probe on {settings.features}"))
        return ProbeMember(probe, outputs, placement)


def _held_out(choice: Choice, points: Points, inputs: FitInputs, ids: Ids) -> HeldOut:
    images, paths = said_held_out(choice, points, inputs.key, every=inputs.held_out == "all")
    levels = PathTree.of(inputs.outputs).marginals(torch.from_numpy(paths).float())
    return HeldOut(ids[images], tuple(_normalised(level).numpy() for level in levels))


def _normalised(level: Tensor) -> Tensor:
    """A distribution from masses, (images, outputs): of an image that has none there, all outputs are alike."""
    return (level + _LEAST_MASS) / (level + _LEAST_MASS).sum(dim=1, keepdim=True)


def _regression(settings: ProbeConfig, key: Key) -> Regression:
    return Logistic() if settings.regression == "logistic" else KernelRidge(key)


def _rows(inputs: FitInputs) -> Ids:
    """The examples that the probe is fitted to."""
    number = len(inputs.examples.ids)
    if number <= _MOST_IMAGES:
        return np.arange(number)
    return np.sort(generator(*inputs.key, "images").choice(number, _MOST_IMAGES, replace=False))


def _possible(inputs: FitInputs, rows: Ids) -> Matrix:
    """The paths that the labels leave open, (rows, paths)."""
    tree = PathTree.of(inputs.outputs)
    masses = [torch.from_numpy(level) for level in inputs.examples.targets(rows)]
    # A level that teaches nothing leaves all paths open.
    logs = [logarithms(torch.where(level.sum(dim=1, keepdim=True) > 0, level, 1.0)) for level in masses]
    open_ = (tree.scores(logs) > math.log(_LEAST_MASS)).double().numpy()
    # A label that the model has no path for, such as an inner class without an output for 'nothing', says nothing.
    open_[open_.sum(axis=1) == 0] = 1.0
    return np.asarray(open_)


def _found(features: Features, inputs: FitInputs, ids: Ids, *, flip: bool) -> Matrix:
    """Features of some images, or of their mirror images, (images, features)."""

    def images(some: Ids) -> Tensor:
        return inputs.images(some).flip(3) if flip else inputs.images(some)

    return features_of(features, images, ids, inputs.progress, f"{inputs.name}, mirrored" if flip else inputs.name)


@torch.inference_mode()
def features_of(features: Features, images: Callable[[Ids], Tensor], ids: Ids, progress: Progress, name: str) -> Matrix:
    """Features of some images, (images, features); where the memory does not do, of fewer of them at once.

    Args:
        features: What computes them.
        images: Images by id, float32 (images, 3, side, side), on the device of ``features``.
        ids: The images.
        progress: Told how far it is.
        name: What the work is called there, and in errors.

    Raises:
        ConfigError: A backbone cannot take these images.
        RefusedError: The memory does not do for one of them.
    """
    found = np.empty((len(ids), features.width))
    first, at_once = 0, _AT_ONCE
    with progress.task(name, len(ids), "images") as task:
        while first < len(ids):
            try:
                made = features(images(ids[first : first + at_once])).cpu().numpy()
            except torch.OutOfMemoryError as error:
                if at_once == 1:
                    raise RefusedError(f"{name}: no memory for the features of one image: {summary(error)}") from None
                at_once //= 2
                continue
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ConfigError(f"{name}: a backbone cannot take these images: {summary(error)}") from error
            found[first : first + len(made)] = made
            first += len(made)
            task.advance(len(made))
    return found


def _say(inputs: FitInputs, first: Chosen, last: Chosen, is_mirrored: bool) -> None:
    said = f"  {inputs.name}: {first.described()}{', with mirror images' if is_mirrored else ''}"
    if len(inputs.heap):
        said += (
            f"; with {len(inputs.heap):,} images of the heap the log-likelihood of held-out labels is "
            f"{last.likelihood:.3f}, without them {first.likelihood:.3f}"
        )
    inputs.progress.say(said)


def _anchors(path: Path) -> int:
    """Number of anchors of the probe in a file; 0 for a linear one.

    Raises:
        ArtifactError: It is not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return int(file.get_slice("anchors").get_shape()[0]) if "anchors" in set(file.keys()) else 0
    except (SafetensorError, OSError, RuntimeError, IndexError, ValueError) as error:
        raise ArtifactError(f"{path} does not hold a probe: {summary(error)}") from error
