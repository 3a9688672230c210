"""The families of networks that people ask for, alone and side by side: trained, kept, read, and asked for labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fitting import MILD, fit, losses
from nstudent.config.file import load_config
from nstudent.config.members import ModelConfig
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import predict
from nstudent.models.network import build_network
from nstudent.models.recipe import Recipe
from nstudent.storage.commit import commit, open_partial
from nstudent.training.loop import Length, Loop
from trees import outputs_of

FAMILIES = {
    "EfficientNetV2": ModelConfig(backbones=("tf_efficientnetv2_b0",), backbone_options={}),
    "ReXNet": ModelConfig(backbones=("rexnet_100",), backbone_options={}),
    "MobileNetV3": ModelConfig(backbones=("mobilenetv3_small_050",), backbone_options={}),
    "NFNet": ModelConfig(backbones=("test_nfnet",), backbone_options={}),
    "VGG": ModelConfig(backbones=("vgg11",), backbone_options={"mlp_ratio": 0.02}),
    "ResNet": ModelConfig(backbones=("resnet10t",), backbone_options={}),
    "DenseNet": ModelConfig(
        backbones=("densenet121",), backbone_options={"growth_rate": 8, "block_config": (2, 2, 2, 2)}
    ),
    "the contest's": ModelConfig(
        backbones=("tf_efficientnetv2_b0", "rexnet_100", "mobilenetv3_small_050"),
        backbone_options={},
        wide_channels=16,
    ),
    "five and a convolution": ModelConfig(
        backbones=("test_nfnet", "resnet10t", "mobilenetv3_small_050", "test_vit", "test_efficientnet"),
        backbone_options={},
        wide_channels=16,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_of_any_family_learns_labels_and_is_read_again(
    family: str, make_loop: Callable[..., Loop], digits: Dataset, tmp_path: Path
) -> None:
    model = FAMILIES[family]
    # Clipped row by row a network learns more slowly, and can be taught at a higher rate.
    own = {"clip": "agc", "learning_rate": 0.02} if "nfnet" in model.backbones[0] else {"learning_rate": 0.001}
    loop = make_loop(Length(3, 3), MILD, model=model, checkpoint_seconds=1e9, **own)
    trained = fit(loop, tmp_path)
    assert losses(trained)[-1] < losses(trained)[0]
    recipe = Recipe.of(Config(), digits.taxonomy, [model])
    placement = Placement(torch.device("cpu"), "float32")
    ensemble = Ensemble.of_networks(recipe, [trained.network], placement)
    ids = digits.unlabelled[:12]
    said = predict(ensemble, digits.pixels, ids, 5)
    for level in said:
        assert len(level) == 12
        np.testing.assert_allclose(level.sum(axis=1), 1, rtol=1e-3)
    folder = tmp_path / "01-teacher"
    ensemble.save(open_partial(folder, "by hand"))
    fields = {"stage": "teacher", "role": "classifier", "round": 0, "asked": {}, "inputs": {}, "metrics": {}}
    again = Ensemble.load(commit(folder, fields | {"seconds": 0.0}), placement)
    for before, after in zip(said, predict(again, digits.pixels, ids, 5), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_the_entry_of_the_contest_stays_within_its_limit() -> None:
    config = load_config(Path(__file__).resolve().parents[2] / "configs" / "contest.yaml")
    (member,) = config.teacher.members
    assert isinstance(member, ModelConfig)
    assert config.data.image_size == 224
    network = build_network(member, outputs_of(12, 53, 42), ("cost",), load_pretrained=False)
    recipe = Recipe.of(config, outputs_of(12, 53, 42, levels=("coarse", "mid", "fine")).taxonomy, [member])
    cost = Ensemble.of_networks(recipe, [network], Placement(torch.device("cpu"), "float32")).gmacs
    assert 1.5 < cost < (config.teacher.max_gmacs or 0) == config.final.max_gmacs == 2.0
    assert config.student.model.model_dump() == member.model_dump()
