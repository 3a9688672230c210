"""Random erasing of whole batches: what albumentations does image by image, drawn at once; and Cutout."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import albumentations as A
import numpy as np
import pytest
import torch
from nstudent.noise.erasing import Holes, Painting, cutout, draw_holes, draw_squares, erased, erasing
from scipy.stats import ks_2samp

NUM_DRAWS, SIDE = 3000, 40
LARGEST_GAP = 0.05
"""Between two empirical distributions of so many draws of the same variable: exceeded once in a thousand times."""


def pictures(number: int = 16, side: int = SIDE) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(1, 255, (number, side, side, 3), dtype=np.uint8))


def painted(painting: Painting, images: torch.Tensor, *key: int | str) -> torch.Tensor:
    return painting(images, key, np.arange(len(images)), len(images))


def run(probability: float, images: torch.Tensor, *key: int | str) -> torch.Tensor:
    return painted(erasing(probability), images, *key)


def measures(images: list[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
    """Of each image that differs from black: height, width and place of what does, and its first colour."""
    touched = [np.argwhere(image.any(axis=2)) for image in images]
    corners = np.array([[*where.min(axis=0), *where.max(axis=0)] for where in touched if len(where)])
    colours = [image[tuple(where[0])] for image, where in zip(images, touched, strict=True) if len(where)]
    top, left, bottom, right = corners.T
    sizes = {"height": bottom - top + 1, "width": right - left + 1, "top": top, "left": left}
    return sizes | {"red": np.array(colours)[:, 0], "blue": np.array(colours)[:, 2]}


def test_places_sizes_and_colours_are_those_of_albumentations() -> None:
    black = torch.zeros(NUM_DRAWS, SIDE, SIDE, 3, dtype=torch.uint8)
    twin = A.Erasing(scale=(0.02, 0.2), ratio=(0.3, 3.3), fill="random_uniform", p=1.0)
    twin.set_random_seed(1)
    theirs = measures([twin(image=np.zeros((SIDE, SIDE, 3), np.uint8))["image"] for _ in range(NUM_DRAWS)])
    ours = measures(run(1.0, black, "all").numpy())
    gaps = {name: ks_2samp(ours[name], theirs[name]).statistic for name in ours}
    assert max(gaps.values()) < LARGEST_GAP, gaps


def test_as_many_images_are_touched_as_it_says() -> None:
    images = pictures(NUM_DRAWS, 8)
    touched = (run(0.25, images, "some") != images).flatten(1).any(dim=1)
    assert 0.22 <= touched.float().mean() <= 0.28


def test_a_hole_is_one_rectangle_of_one_colour_and_all_else_stays() -> None:
    images = pictures(2)
    holes = Holes(np.array([[5, 7, 9, 20], [0, 0, 0, 0]]), np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    found = erased(images, holes)
    expected = images.clone()
    expected[0, 7:20, 5:9] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    assert torch.equal(found, expected)


def test_holes_lie_inside() -> None:
    hole = draw_holes(1.0, 2000, 9, ("inside",)).hole
    assert hole.min() == 0
    assert hole.max() == 9
    assert (hole[:, :2] <= hole[:, 2:]).all()


def test_equal_keys_give_equal_holes_and_no_two_images_or_keys_share_theirs() -> None:
    black = torch.zeros(40, SIDE, SIDE, 3, dtype=torch.uint8)
    found = [each.numpy().tobytes() for step in range(5) for each in run(1.0, black, "step", step)]
    assert len(set(found)) == len(found)
    torch.manual_seed(2)
    assert torch.equal(run(1.0, black, "step", 3), run(1.0, black, "step", 3))


@pytest.mark.parametrize("painting", [erasing(0.7), cutout(0.5)])
def test_the_images_given_are_not_changed_and_how_a_batch_is_divided_does_not_matter(painting: Painting) -> None:
    images = pictures()
    before, whole = images.clone(), painted(painting, images, "k")
    assert torch.equal(images, before)
    assert not torch.equal(whole, before)
    parts = [np.arange(5), np.arange(5, 16)]
    divided = [painting(images[part], ("k",), part, 16) for part in parts]
    assert torch.equal(torch.cat(divided), whole)


def test_cutout_paints_a_grey_square_around_any_pixel_and_cuts_it_off_at_the_border() -> None:
    side, size = 8, 4
    found = painted(cutout(0.5), torch.zeros(6400, side, side, 3, dtype=torch.uint8), "k")
    assert set(found.unique().tolist()) == {0, 128}
    # A centre near the border loses what lies outside: rows 0..1, 0..2, then 0..3 to 4..7, then 5..7.
    first = [max(0, centre - 2) for centre in range(side)]
    last = [min(side, centre + 2) for centre in range(side)]
    height = np.array(last) - first
    rows = (found[..., 0] > 0).any(dim=2).sum(dim=1).numpy()
    columns = (found[..., 0] > 0).any(dim=1).sum(dim=1).numpy()
    for lines in (rows, columns):
        counts = np.bincount(lines, minlength=size + 1)
        expected = np.bincount(height, minlength=size + 1) * len(found) / side
        assert counts == pytest.approx(expected, rel=0.12)
    assert not np.array_equal(rows, columns)


@pytest.mark.parametrize(("share", "size"), [(0.5, 20), (0.25, 10), (0.01, 0), (1.0, 40)])
def test_a_square_of_cutout_has_the_share_of_the_side(share: float, size: int) -> None:
    hole = draw_squares(share, 3000, SIDE, ("k",)).hole
    assert (hole[:, 2:] - hole[:, :2]).max() == size
    assert hole.min() >= 0
    assert hole.max() <= SIDE


def test_cutout_of_nothing_changes_nothing() -> None:
    images = pictures()
    assert torch.equal(painted(cutout(0.0), images, "k"), images)


@pytest.mark.gpu
def test_cpu_and_gpu_agree_and_the_gpu_is_not_waited_for(
    not_waiting: Callable[[], AbstractContextManager[None]],
) -> None:
    images = pictures()
    there = images.cuda()
    run(0.7, there, "warm")
    with not_waiting():
        found = run(0.7, there, "k")
    assert torch.equal(found.cpu(), run(0.7, images, "k"))
