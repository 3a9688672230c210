"""Gradient orientations: what the features say of simple images, by hand."""

import math

import torch
from nstudent.models.gradients import Gradients

FINE, COARSE = slice(0, 9 * 16**2), slice(9 * 16**2, 9 * (16**2 + 8**2))
THUMBNAIL = slice(9 * (16**2 + 8**2), None)


def ramp(angle: float) -> torch.Tensor:
    """An image that becomes lighter in one direction, (1, 3, 32, 32)."""
    at = torch.arange(32) / 32
    slope = 0.02 * (math.cos(angle) * at[None, :] + math.sin(angle) * at[:, None])
    return (0.5 + slope).expand(1, 3, 32, 32)


def strongest(features: torch.Tensor, part: slice, side: int) -> int:
    """The orientation that is strongest in the middle of the image."""
    maps = features[0, part].reshape(9, side, side)
    return int(maps[:, side // 2, side // 2].argmax())


def test_there_are_as_many_features_as_it_says() -> None:
    assert Gradients()(torch.rand(2, 3, 32, 32)).shape == (2, Gradients.width)


def test_each_scale_has_the_norm_one_and_a_plain_image_has_no_gradients() -> None:
    features = Gradients()(torch.rand(3, 3, 32, 32))
    for scale in (FINE, COARSE):
        torch.testing.assert_close(features[:, scale].norm(dim=1), torch.ones(3))
    plain = Gradients()(torch.full((1, 3, 32, 32), 0.5))
    assert not plain[:, : THUMBNAIL.start].any()
    torch.testing.assert_close(plain[0, THUMBNAIL], torch.full((192,), 0.5 * 1.3 / 8 / math.sqrt(3)))


def test_an_orientation_is_that_of_the_gradient_whichever_way_it_goes() -> None:
    gradients = Gradients()
    for number in range(9):
        angle = number * math.pi / 9
        for turned in (angle, angle + math.pi):
            features = gradients(ramp(turned))
            assert strongest(features, FINE, 16) == number
            assert strongest(features, COARSE, 8) == number


def test_a_gradient_between_two_orientations_is_shared_by_them() -> None:
    maps = Gradients()(ramp(2.5 * math.pi / 9))[0, FINE].reshape(9, 16, 16)[:, 8, 8]
    torch.testing.assert_close(maps[2], maps[3], rtol=1e-3, atol=1e-3)
    assert not maps[[0, 1, 4, 5, 6, 7, 8]].any()


def test_the_gradient_is_that_of_the_colour_where_it_is_strongest() -> None:
    images = torch.cat([ramp(0.0)[:, :1], 4 * ramp(math.pi / 2)[:, 1:2] - 1.5, ramp(0.0)[:, 2:]], dim=1)
    assert strongest(Gradients()(images), FINE, 16) == strongest(Gradients()(ramp(math.pi / 2)), FINE, 16)


def test_mirror_images_are_as_far_from_each_other_as_the_images() -> None:
    images = torch.rand(6, 3, 32, 32)
    apart, mirrored = (torch.cdist(found, found) for found in (Gradients()(images), Gradients()(images.flip(3))))
    torch.testing.assert_close(apart, mirrored, atol=1e-4, rtol=1e-4)


def test_images_of_other_sizes_are_brought_to_the_same_one() -> None:
    gradients, images = Gradients(), torch.rand(2, 3, 8, 8)
    larger = torch.nn.functional.interpolate(images, size=(32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(gradients(images), gradients(larger))
