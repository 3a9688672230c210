"""What a key is where nobody gives it, by what is known of the images and the weights."""

from pathlib import Path
from typing import Any

import pytest
import timm
from nstudent.config.data import USUAL_LEVELS
from nstudent.config.file import load_config, reload_config
from nstudent.config.origins import resolved
from nstudent.config.recipe import lay_under
from nstudent.config.schema import Config, ModelConfig
from nstudent.config.yaml_text import dump_yaml
from nstudent.models.cost import gmacs
from nstudent.models.network import build_network
from nstudent.training.trial import any_outputs

PRETRAINED = (
    "teacher.members=[{backbones: [tf_efficientnet_lite0], pretrained: w.safetensors}, {backbones: [resnet18]}]"
)
PHOTOS = ("data.source=folder", "data.root=photos")


@pytest.mark.parametrize(
    "words", [[], ["data.source=digits"], ["data.source=idx", "data.root=x", "data.class_paths=[a]"]]
)
def test_drawings_have_the_defaults_of_the_schema(words: list[str]) -> None:
    found = load_config(None, words)
    assert found.model_dump(exclude={"data"}) == Config().model_dump(exclude={"data"})
    assert found.data.image_size == Config().data.image_size


@pytest.mark.parametrize("source", ["folder", "csv", "hdf5", "packed"])
def test_photos_have_their_own_noise_and_size(source: str) -> None:
    table = ["data.table=t.csv"] if source == "csv" else []
    found = load_config(None, [f"data.source={source}", "data.root=x", *table])
    for noise in (found.teacher.noise, found.student.noise):
        assert (noise.flip, noise.shift, noise.zoom, noise.rotate) == (None, 0.15, 0.25, 15.0)
        assert (noise.operations, noise.dropout, noise.cutmix, noise.cutmix_schedule) == (1, 0.2, 0.5, "constant")
    assert (found.teacher.noise.drop_path, found.student.noise.drop_path) == (0.0, 0.1)
    assert found.data.image_size == 64
    without_noise = {"teacher": {"noise"}, "student": {"noise"}, "data": True}
    assert found.model_dump(exclude=without_noise) == Config().model_dump(exclude=without_noise)


def test_weights_ask_for_larger_images_a_lower_rate_and_a_student_that_has_them_too() -> None:
    found = load_config(None, [*PHOTOS, PRETRAINED])
    assert found.data.image_size == 224
    assert (found.teacher.learning_rate, found.student.learning_rate) == (0.001, 0.001)
    assert found.student.model.backbones == ("tf_efficientnet_lite0",)
    assert found.student.model.pretrained == "w.safetensors"
    # Those of the student that is trained from scratch hold for no other backbone.
    assert found.student.model.backbone_options == {}
    assert found.student.noise.flip is None


def test_networks_see_less_than_frozen_features_where_nobody_says_how_large_images_are() -> None:
    given = "teacher.members=[{backbones: [resnet18], pretrained: w}, {backbones: [resnet18], image_size: 96}]"
    model = "student.model={backbones: [resnet18]}"
    found = load_config(None, [*PHOTOS, given, model])
    assert [member.model_dump()["image_size"] for member in found.teacher.members] == [128, 96]
    assert (found.student.model.image_size, found.filter.model.image_size) == (128, 128)
    assert load_config(None, [*PHOTOS, given]).student.model.image_size == 128
    sized = load_config(None, [*PHOTOS, given, model, "data.image_size=192"])
    assert [member.model_dump()["image_size"] for member in sized.teacher.members] == [None, 96]
    assert (sized.student.model.image_size, sized.filter.model.image_size) == (None, None)
    origins = {line.key: line.origin for line in resolved(None, [*PHOTOS, given])}
    assert origins["teacher.members.0.image_size"] == "recipe for pretrained networks"
    assert origins["teacher.members.1.image_size"] == "command line"


def test_a_student_from_scratch_of_small_images_has_only_its_mirrors_from_the_recipe() -> None:
    small = load_config(None, [*PHOTOS, "data.image_size=63"])
    assert small.student.noise == Config().student.noise.model_copy(update={"flip": None})
    assert small.teacher.noise == load_config(None, PHOTOS).teacher.noise
    assert load_config(None, [*PHOTOS, "data.image_size=64"]).student.noise.rotate == 15.0
    assert load_config(None, [*PHOTOS, "data.image_size=32", PRETRAINED]).student.noise.rotate == 15.0


@pytest.mark.parametrize(
    "members",
    [
        "[{backbones: [resnet18], pretrained: false}]",
        "[{kind: probe, features: backbones, backbones: [resnet18], pretrained: true}, {backbones: [resnet18]}]",
    ],
)
def test_only_a_network_that_starts_from_weights_counts(members: str) -> None:
    assert load_config(None, [*PHOTOS, f"teacher.members={members}"]).data.image_size == 64


def test_what_is_given_stands_and_the_rest_of_its_group_follows_the_recipe(tmp_path: Path) -> None:
    page = tmp_path / "page.yaml"
    page.write_text("data: {source: folder, root: x}\nstudent: {noise: {flip: false}, learning_rate: 0.005}\n")
    found = load_config(page, [PRETRAINED, "data.image_size=96", "student.model.backbones=[resnet18]"])
    assert (found.student.noise.flip, found.student.noise.rotate) == (False, 15.0)
    assert (found.teacher.noise.flip, found.teacher.learning_rate) == (None, 0.001)
    assert (found.student.learning_rate, found.data.image_size) == (0.005, 96)
    # A network is one thing: of one that is given in part, nothing is added.
    assert (found.student.model.backbones, found.student.model.pretrained) == (("resnet18",), False)


def test_a_run_goes_on_with_the_configuration_it_has_kept(tmp_path: Path) -> None:
    kept = tmp_path / "config.yaml"
    for config in (load_config(None, PHOTOS), Config.model_validate({"data": {"source": "folder", "root": "x"}})):
        kept.write_text(dump_yaml(config.model_dump(mode="json")))
        assert reload_config(kept) == config


def test_the_origin_of_a_value_is_the_rule_it_follows_from() -> None:
    found = {line.key: line.origin for line in resolved(None, [*PHOTOS, PRETRAINED, "teacher.noise.flip=false"])}
    assert found["student.noise.flip"] == "recipe for photos"
    assert found["student.learning_rate"] == "recipe for pretrained networks"
    assert found["student.model.pretrained"] == "recipe for pretrained networks"
    assert found["teacher.noise.flip"] == "command line"
    assert found["teacher.epochs"] == "default"


@pytest.mark.parametrize(
    "page",
    [
        {"data": "folder"},
        {"data": {"source": ["folder"]}},
        {"data": {"source": "folder"}, "teacher": 3, "student": {"noise": None}},
        {"data": {"source": "folder"}, "teacher": {"members": [1, {"pretrained": True}]}},
        {"data": {"source": "folder"}, "teacher": {"members": "x", "noise": []}},
    ],
)
def test_what_is_wrong_in_a_page_is_left_to_be_named(page: dict[str, Any]) -> None:
    given = {key: value for key, value in page.items() if not isinstance(value, dict)}
    lay_under(page)
    assert {key: page[key] for key in given} == given


@pytest.mark.slow
def test_the_page_for_photos_has_three_kinds_of_networks_within_its_limit_and_says_what_each_costs() -> None:
    path = Path(__file__).resolve().parents[2] / "configs" / "photos.yaml"
    config, text = load_config(path), path.read_text(encoding="utf-8")
    outputs = any_outputs(USUAL_LEVELS[-1], config.absent)

    def cost(model: ModelConfig) -> float:
        return gmacs([build_network(model, outputs, ("cost",), load_pretrained=False)], config.data.image_size)

    costs = {}
    for member in config.teacher.members:
        assert isinstance(member, ModelConfig)
        assert member.pretrained is True
        (name,) = member.backbones
        known = timm.get_pretrained_cfg(name)
        assert known is not None
        assert known.has_weights, "timm has its weights"
        costs[name] = cost(member)
    assert len(costs) == 3
    assert all(f"{name} {cost:.2f}" in text for name, cost in costs.items())
    assert f"together {sum(costs.values()):.2f}" in text
    assert config.teacher.max_gmacs == config.final.max_gmacs == 2
    assert sum(costs.values()) <= 2
    student = cost(config.student.model)
    assert f"{config.student.model.backbones[0]} {student:.2f}" in text
    assert student > max(costs.values()), "a student is larger than those that teach it"
