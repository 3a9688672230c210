"""Heads: pooled features in, logits for every level out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from nstudent.config.members import HeadName
from nstudent.models.marginals import Marginals, ends_of, log_softmax
from nstudent.models.precision import in_full
from nstudent.tables import chosen
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor, nn
from torch.nn.functional import normalize

Logits = tuple[Tensor, ...]
"""Per level, coarse first: (batch, outputs of the level)."""
LAST_LAYERS = "classify"
"""Name, in every head, of the layer or layers that give the logits: what treats a classifier apart goes by it."""
_ROWS_TOGETHER = 16  # Images that an expert looks at together.


@dataclass(frozen=True)
class HeadSettings:
    """What a head may depend on."""

    num_features: int
    """Number of features of an image, from all backbones together."""
    outputs: Outputs
    """What the network is to say, and on which tree."""
    width: int
    """Features that a level projects for itself, if the head has projections."""
    columns: Sequence[Sequence[int]] | None = None
    """Per level, the features that are meant for it: those of shallower maps for coarser levels; ``None``: every level
    may read all of them."""
    routing_threshold: float = 0.0
    """Probability from which on the expert of a class is asked when the network is used, if the head has experts."""


class CascadeHead(nn.Module):
    """Each level projects features of its own, and also reads those of the levels before it, detached.

    With ``fine_to_coarse`` the order starts at the finest level: coarse decisions profit from what tells fine classes
    apart, while their gradients leave the fine features alone ("Your 'Flamingo' is My 'Bird'", arXiv 2011.09040).
    ``coarse_to_fine`` is the reverse: a fine decision is conditioned on what tells coarse classes apart.
    """

    def __init__(self, settings: HeadSettings, *, fine_first: bool) -> None:
        super().__init__()
        num_features, outputs, width = settings.num_features, settings.outputs, settings.width
        num_levels = len(outputs.sizes)
        self._order = tuple(reversed(range(num_levels)) if fine_first else range(num_levels))
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(num_features, width), nn.LayerNorm(width), nn.GELU()) for _ in outputs.sizes
        )
        self.classify = nn.ModuleList(
            nn.Linear(width * (self._order.index(level) + 1), size) for level, size in enumerate(outputs.sizes)
        )

    def forward(self, features: Tensor) -> Logits:
        """(batch, features) -> logits per level."""
        logits: dict[int, Tensor] = {}
        read: list[Tensor] = []
        for level in self._order:
            own = self.project[level](features)
            logits[level] = self.classify[level](torch.cat([own, *read], dim=1))
            read.append(own.detach())
        return tuple(logits[level] for level in range(len(self._order)))


class IndependentHead(nn.Module):
    """One linear layer a level, all on the same features."""

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.classify = nn.ModuleList(nn.Linear(settings.num_features, size) for size in settings.outputs.sizes)

    def forward(self, features: Tensor) -> Logits:
        """(batch, features) -> logits per level."""
        return tuple(layer(features) for layer in self.classify)


class FlatHead(nn.Module):
    """One softmax over all places where a label may end; the levels are its marginals (arXiv 2210.10929).

    Every class without classes below it is a leaf of the softmax, and so is every inner class where labels may end: its
    leaf says that the label stops there. A label that is known at a coarse level alone raises the probability of all
    leaves below its class, and leaves the proportions among them as they are.
    """

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.classify = nn.Linear(settings.num_features, len(ends_of(settings.outputs.taxonomy)))
        self.marginals = Marginals(settings.outputs)

    def forward(self, features: Tensor) -> Logits:
        """(batch, features) -> logits per level: logarithms of probabilities."""
        logits: Logits = self.marginals(log_softmax(self.classify(features)))
        return logits


class RoutedHead(nn.Module):
    """A router over the classes of the first level, and for each of them an expert in what is below it.

    The probability of a leaf is that of its coarse class, by the router, times that of the leaf among those below this
    class, by its expert (HD-CNN, Yan et al., arXiv 1410.0736; there experts may share classes, here the tree says which
    are whose). An expert projects features of its own; leaves are as in ``FlatHead``, and levels are their marginals.
    The first level is the router's alone, so that no label of that level teaches an expert.

    When the network is used, an expert whose class is less probable than ``routing_threshold`` is not asked, unless the
    class is the most probable one: all leaves below the class then have equal parts of its probability. (The paper
    leaves the class out and divides by what is left. Here the first level stays what the router says, and no label is
    impossible.) In training all experts are asked.
    """

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        num_features, outputs, width = settings.num_features, settings.outputs, settings.width
        self._threshold = settings.routing_threshold
        coarse = ends_of(outputs.taxonomy)[:, 0]
        # The leaves are in ascending order: those of one coarse class stand together.
        self._leaves = np.bincount(coarse, minlength=outputs.taxonomy.num_classes[0]).tolist()
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(num_features, width), nn.LayerNorm(width), nn.GELU()) for _ in self._leaves
        )
        experts = [nn.Linear(width, leaves) for leaves in self._leaves]
        self.classify = nn.ModuleList([nn.Linear(num_features, len(self._leaves)), *experts])
        self.marginals = Marginals(outputs)

    def forward(self, features: Tensor) -> Logits:
        """(batch, features) -> logits per level: logarithms of probabilities."""
        router = self.classify[0]
        routed = log_softmax(router(features))
        said = self._all_experts(features) if self.training or not self._threshold else self._asked(features, routed)
        logits: Logits = self.marginals(
            torch.cat([routed[:, number, None] + leaves for number, leaves in enumerate(said)], dim=1)
        )
        return logits

    def _expert(self, number: int, features: Tensor) -> Tensor:
        """Logarithms of the probabilities of leaves below a class, (batch, its leaves)."""
        return log_softmax(self.classify[number + 1](self.project[number](features)))

    def _all_experts(self, features: Tensor) -> list[Tensor]:
        return [self._expert(number, features) for number in range(len(self._leaves))]

    def _asked(self, features: Tensor, routed: Tensor) -> list[Tensor]:
        """What the experts say of the images for which they are asked, and even shares of the others."""
        numbers = range(len(self._leaves))
        even = [routed.new_full((routed.shape[0], leaves), -math.log(leaves)) for leaves in self._leaves]
        if features.is_meta:
            # Only the cost is wanted, and which experts are asked is not known: as many as there can be for an image.
            dearest = sorted(numbers, key=lambda number: -self._leaves[number])[: most_asked(self._threshold)]
            return [self._expert(number, features) if number in dearest else even[number] for number in numbers]
        asked = routed >= math.log(self._threshold)
        asked = asked.scatter(1, routed.argmax(dim=1, keepdim=True), True)
        if torch.compiler.is_exporting():
            # A program is one piece, for any number of images: it asks all experts, and says the same.
            return [torch.where(asked[:, i, None], self._expert(i, features), even[i]) for i in numbers]
        for number in numbers:
            rows = asked[:, number].nonzero().flatten()
            if len(rows):
                even[number] = even[number].index_copy(0, rows, self._of_rows(number, features, rows).to(routed.dtype))
        return even

    # torch.compile would make a program for every expert and every number of blocks, and give up after a few.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _of_rows(self, number: int, features: Tensor, rows: Tensor) -> Tensor:
        """What an expert says of some of the images, (rows, its leaves)."""
        # Few rows would be added up in another order. In blocks of one shape, of which the last is filled up, what is
        # said of an image does not depend on those beside it, and a labelling that was resumed has the same bytes.
        filled = torch.cat([rows, rows[-1:].expand(-len(rows) % _ROWS_TOGETHER)])
        said = [self._expert(number, features[block]) for block in torch.split(filled, _ROWS_TOGETHER)]
        return torch.cat(said)[: len(rows)]


def most_asked(threshold: float) -> int:
    """Largest number of classes that can reach a probability at once, above 0: as their sum is 1, 1 / threshold."""
    return max(1, int(1 / threshold + 1e-9))


class BranchingHead(nn.Module):
    """Each level reads features of its own, coarser levels those of shallower maps of the backbones.

    B-CNN (Zhu & Bain, arXiv 1709.09890) and H-CNN (Seo & Shin, Expert Systems with Applications 116, 2019): what tells
    coarse classes apart is found early in a network. A branch here is one projection of the mean of a map; in the
    papers it is two layers on the whole map. The gradients of a level go into the maps that it reads and above them.
    """

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        levels, every = range(len(settings.outputs.sizes)), range(settings.num_features)
        columns = settings.columns or [every for _ in levels]
        for level in levels:
            # They follow from the backbones: a file of weights holds none of them.
            self.register_buffer(f"_columns_{level}", torch.tensor(list(columns[level])), persistent=False)
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(len(read), settings.width), nn.LayerNorm(settings.width), nn.GELU())
            for read in columns
        )
        self.classify = nn.ModuleList(nn.Linear(settings.width, size) for size in settings.outputs.sizes)

    def forward(self, features: Tensor) -> Logits:
        """(batch, features) -> logits per level."""
        return tuple(
            classify(project(features[:, self.get_buffer(f"_columns_{level}")]))
            for level, (project, classify) in enumerate(zip(self.project, self.classify, strict=True))
        )


HEADS: dict[HeadName, Callable[[HeadSettings], nn.Module]] = {
    "fine_to_coarse": partial(CascadeHead, fine_first=True),
    "coarse_to_fine": partial(CascadeHead, fine_first=False),
    "independent": IndependentHead,
    "flat": FlatHead,
    "hd_cnn": RoutedHead,
    "branching": BranchingHead,
}
"""The heads by their names in the configuration (``head`` of a model): all of those that ``HeadName`` lists.

A head is a module that turns features, (batch, num_features), into ``Logits``; its weights are drawn from torch's
generator. The layers that give the logits stand in its attribute ``classify`` (``LAST_LAYERS``).
"""


def build_head(name: str, settings: HeadSettings) -> nn.Module:
    """Make the head that has this name in the configuration.

    Raises:
        ConfigError: There is no such head; the message lists those that there are.
    """
    return chosen(HEADS, name, "head")(settings)


def normalised(logits: Logits, temperature: float) -> Logits:
    """LogitNorm (Wei et al., arXiv 2205.09310, equation 5): logits / (temperature * their length), level by level.

    The paper normalises in the loss alone, where the length of the logits is then never learnt. Here the network gives
    normalised logits whenever it is asked: the answers are the same, and their probabilities those that were trained.

    Args:
        logits: Per level (batch, outputs).
        temperature: Above 0. The smaller it is, the surer the network can be.

    Returns:
        In float32 at least, of the same shapes and of the length 1 / temperature.
    """
    return tuple(normalize(in_full(level), dim=1, eps=1e-7) / temperature for level in logits)
