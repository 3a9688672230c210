"""Losses of single images: golden values, and what a loss has to keep to so that parts of a batch add up."""

import pytest
import torch
from nstudent.errors import ConfigError
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from nstudent.training.losses import LOSSES, LossSettings, build_loss, even_weights

OUTPUTS = Outputs(Taxonomy.from_tree({"A": {"a": None, "b": None}, "B": {"c": None}}, ("coarse", "fine")))


def settings(smoothing: float = 0.1) -> LossSettings:
    weights = [torch.linspace(0.5, 2.0, size) for size in OUTPUTS.sizes]
    return LossSettings(OUTPUTS, weights, smoothing)


def mass(level: int, images: int = 7) -> torch.Tensor:
    """Soft targets, and one image that teaches nothing."""
    source = torch.Generator().manual_seed(level)
    soft = torch.randn(images, OUTPUTS.sizes[level], generator=source).softmax(dim=1)
    soft[3] = 0
    return soft


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("level", [0, 1])
def test_a_loss_is_one_number_an_image_and_nothing_is_learnt_where_nothing_is_taught(name: str, level: int) -> None:
    logits = torch.randn(7, OUTPUTS.sizes[level], requires_grad=True)
    found = build_loss(name, settings())(logits, mass(level), level)
    assert found.shape == (7,)
    assert found[3] == 0
    assert (found[[0, 1, 2, 4, 5, 6]] > 0).all()
    found.sum().backward()
    assert logits.grad is not None
    assert not logits.grad[3].any()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("level", [0, 1])
def test_what_images_count_can_be_asked_of_their_sum(name: str, level: int) -> None:
    """Linear in the mass: portions and processes are divided by what the whole batch counts."""
    loss, images = build_loss(name, settings()), mass(level)
    torch.testing.assert_close(loss.weight(images, level).sum(), loss.weight(images.sum(dim=0), level))
    torch.testing.assert_close(loss.weight(3 * images, level), 3 * loss.weight(images, level))
    assert loss.weight(images, level)[3] == 0


def test_the_cross_entropy_of_one_image_by_hand() -> None:
    logits, target = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    # Smoothed by .1 the mass is (.95, .05), with weights (.5, 2) it is (.475, .1); both classes have -ln .5.
    loss = build_loss("cross_entropy", settings(smoothing=0.1))
    assert loss(logits, target, 0).item() == pytest.approx(0.575 * 0.693147)
    assert loss.weight(target, 0).item() == pytest.approx(0.575)


def test_a_loss_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ConfigError, match="loss: there is no 'hinge': choose from cross_entropy"):
        build_loss("hinge", settings())


def test_even_weights_are_one_for_every_output() -> None:
    assert [level.tolist() for level in even_weights(OUTPUTS, torch.device("cpu"))] == [[1, 1], [1, 1, 1]]
