"""Soups: networks of one architecture that began with the same weights, averaged into one (Wortsman et al., "Model
soups", arXiv 2203.05482).

Networks that were trained from one pretrained start often lie in one basin of the loss, where the mean of their weights
is as good as the mean of their answers, at the cost of a single network. Nothing says so of networks that began apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy

import numpy as np
import torch
from nstudent.data.dataset import Ids, PixelStore
from nstudent.models.device import Placement
from nstudent.models.normalisation import estimate_statistics
from torch import Tensor, nn


def greedy_soup(scores: Sequence[float], score_of: Callable[[tuple[int, ...]], float]) -> tuple[tuple[int, ...], float]:
    """The ingredients of a greedy soup (recipe 1 of the paper), in the order in which they came in, and its score.

    The best network comes first. Of the others, the better ones first, each stays if the soup with it scores no less
    than the soup without it.

    Args:
        scores: Score of each network on held-out images; of equals the first one counts as the better.
        score_of: Gives the score of a soup of two or more, by the numbers of its ingredients.
    """
    best, *others = sorted(range(len(scores)), key=lambda number: -scores[number])
    taken: tuple[int, ...] = (best,)
    score = scores[best]
    for number in others:
        found = score_of((*taken, number))
        if found >= score:
            taken, score = (*taken, number), found
    return taken, score


@torch.no_grad()
def soup_of(networks: Sequence[nn.Module], batches: Callable[[], Iterable[Tensor]], placement: Placement) -> nn.Module:
    """A new network in evaluation mode whose weights are the means of those of some networks.

    What batch normalisation has to know of the activations follows from no mean: it is estimated anew, on the images.
    One network by itself stays as it was trained.

    Args:
        networks: One or more, of one architecture and on one device.
        batches: Gives the images for that, as ``estimate_statistics`` takes them.
        placement: Device of the networks, and precision to look at the images in.
    """
    soup = deepcopy(networks[0]).eval()
    if len(networks) == 1:
        return soup
    states = [network.state_dict() for network in networks]
    for name, tensor in soup.state_dict().items():
        if tensor.is_floating_point():
            # In place, so that the layout in memory stays; in double precision, as far as the device has it.
            exact = torch.float32 if tensor.device.type == "mps" else torch.float64
            total = sum((state[name].to(exact) for state in states), torch.zeros_like(tensor, dtype=exact))
            tensor.copy_(total / len(states))
    with placement.autocast(soup):
        estimate_statistics(soup, batches)
    return soup


def plain_batches(
    pixels: PixelStore, ids: Ids, batch_size: int, placement: Placement
) -> Callable[[], Iterator[Tensor]]:
    """Images as a network sees them in use, without noise, in batches for ``soup_of``.

    Args:
        pixels: The images by id.
        ids: Ids of the images, (images,), in the order in which they are shown.
        batch_size: Smallest number of images of a batch, of which none holds twice as many.
        placement: Device that they are put to.
    """
    # No batch is left over that is too small to normalise by.
    parts = np.array_split(ids, max(1, len(ids) // batch_size))
    return lambda: (placement.images(torch.from_numpy(pixels[part])) for part in parts)
