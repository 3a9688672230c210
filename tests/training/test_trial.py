"""Networks are tried before any of them is trained: what is wrong with one is a line with a remedy that works."""

import re
from pathlib import Path

import pytest
import torch
from nstudent import load_config, plan, run_all
from nstudent.errors import ConfigError
from nstudent.progress import Silence
from nstudent.runs.rehearsal import rehearse
from nstudent.training import trial
from nstudent.training.trial import smallest_batch


def _tried(*words: str, processes: int = 1) -> str:
    """What a person is told; empty if nothing is wrong."""
    config = load_config(None, list(words))
    try:
        rehearse(config, plan(config), Silence(), processes)
    except ConfigError as error:
        return str(error)
    return ""


def test_the_embedded_run_can_be_trained() -> None:
    assert _tried("filter.enabled=true") == ""


VIT = "{backbones: [vit_tiny_patch16_224]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "key"),
    [
        (f"teacher.members=[{{}}, {VIT}]", "teacher.members.1"),
        (f"student.model={VIT}", "student.model"),
        (f"filter.model={VIT}", "filter.model"),
    ],
)
def test_a_network_of_another_image_size_is_named_with_remedies(word: str, key: str) -> None:
    said = _tried(word, "filter.enabled=true", "data.image_size=16")
    assert said.startswith(f"{key}: 'vit_tiny_patch16_224' does not take images of 16 px")
    assert "data.image_size=224" in said
    assert "img_size: 16" in said
    assert "\n" not in said


@pytest.mark.slow
def test_the_remedies_that_are_named_work() -> None:
    small = "{backbones: [vit_tiny_patch16_224], backbone_options: {img_size: 16}}"
    assert _tried(f"student.model={small}", "data.image_size=16") == ""
    assert _tried(f"student.model={VIT}", "data.image_size=224") == ""


@pytest.mark.slow
def test_of_several_backbones_the_one_at_fault_is_named() -> None:
    said = _tried("student.model={backbones: [test_resnet, vit_tiny_patch16_224]}")
    assert "'vit_tiny_patch16_224' does not take" in said
    assert "img_size" not in said, "test_resnet knows no such option"


@pytest.mark.parametrize(
    ("words", "processes", "section", "enough"),
    [
        (["teacher.batch_size=1"], 1, "teacher", 2),
        (["teacher.batch_size=2"], 2, "teacher", 4),
        (["filter.enabled=true", "filter.batch_size=1", "filter.unlabelled_ratio=0"], 1, "filter", 2),
    ],
)
def test_one_image_in_a_batch_of_batch_normalisation(
    words: list[str], processes: int, section: str, enough: int
) -> None:
    said = _tried("data.image_size=8", *words, processes=processes)
    assert said.startswith(f"{section}.batch_size is {words[0 if section == 'teacher' else 1].partition('=')[2]}")
    assert f"set {section}.batch_size={enough} or more" in said
    remedy = [f"{section}.batch_size={enough}"]
    assert _tried("data.image_size=8", *words, *remedy, processes=processes) == ""


def test_a_batch_that_does_not_reach_every_process() -> None:
    assert "4 processes share a batch of 3 images" in _tried("teacher.batch_size=3", processes=4)


def test_each_kind_of_image_is_divided_among_processes_by_itself() -> None:
    assert smallest_batch((3, 3), 2) == 2
    assert smallest_batch((6,), 2) == 3
    assert smallest_batch((1, 3), 1) == 4


@pytest.mark.slow
def test_a_network_without_stochastic_depth_names_the_key_of_its_section() -> None:
    assert "set student.noise.drop_path=0" in _tried("student.model={backbones: [ghostnet_050]}")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("student.model={backbones: [no_such_net]}", "student.model.backbones: timm has no network 'no_such_net'"),
        ("student.model={pretrained: nowhere.safetensors}", "student.model: pretrained: nowhere.safetensors"),
        ("student.optimizer=nosuch", "student.optimizer is 'nosuch'"),
        ("filter.optimizer=nosuch", "filter.optimizer is 'nosuch'"),
    ],
)
def test_what_comes_late_in_a_run_is_told_at_its_beginning(word: str, said: str) -> None:
    assert _tried(word, "filter.enabled=true").startswith(said)


@pytest.mark.parametrize("key", ["teacher", "student"])
def test_an_optimiser_whose_first_step_fails_is_told_before_any_training(key: str) -> None:
    """It can be built: what it cannot do, adahessian without a gradient of the gradient, shows in its first step."""
    said = _tried(f"{key}.optimizer=adahessian")
    assert said.startswith(f"{key}.optimizer is 'adahessian', which cannot train {key}.m")
    assert "adamw and sgd train any network" in said
    assert "\n" not in said
    assert _tried(f"{key}.optimizer=sgd") == ""


def test_an_optimiser_that_could_not_go_on_after_a_kill_is_told_before_any_training() -> None:
    said = _tried("teacher.optimizer=adafactorbv")
    assert said.startswith("teacher.optimizer is 'adafactorbv', which cannot train teacher.members.0 (")
    assert "\n" not in said


def test_an_option_that_the_optimiser_does_not_take_is_told_with_those_that_it_does() -> None:
    said = _tried("student.optimizer=sgd", "student.optimizer_options={betas: [0.9, 0.99]}")
    assert said == (
        "student.optimizer_options: the optimizer 'sgd' takes no 'betas': choose from dampening, momentum, nesterov"
    )
    assert _tried("student.optimizer=sgd", "student.optimizer_options={momentum: 0.8}") == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        # Its first step begins with the second moments alone.
        (["student.optimizer=adopt", "student.optimizer_options={clip_exp: none}"], "is 'adopt', which cannot train"),
        (["student.optimizer=adamw", "student.optimizer_options={betas: 0.9}"], "is 'adamw', which cannot train"),
        (["student.optimizer=old_adamw"], "is 'old_adamw', of which timm would read 'adamw' alone: write adamw, or"),
        (["student.optimizer="], "is '', which cannot train"),
    ],
)
def test_an_optimiser_that_fails_by_its_options_or_its_name_is_told(words: list[str], said: str) -> None:
    told = _tried(*words)
    assert told.startswith(f"student.optimizer {said}")
    assert "\n" not in told


@pytest.mark.slow
def test_layers_that_cannot_be_told_apart_are_told_before_any_training() -> None:
    words = ["data.image_size=64", "teacher.members=[{backbones: [poolformer_s12]}]", "rounds=0"]
    said = _tried(*words, "teacher.layer_decay=0.8")
    assert said.startswith(
        "teacher.layer_decay: timm does not say which layers 'poolformer_s12' has: set layer_decay=1"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "section"),
    [
        (["teacher.members=[{}, " + VIT + "]", "teacher.progressive_stages=2"], "teacher"),
        (["student.model=" + VIT, "student.train_image_size=160"], "student"),
    ],
)
def test_a_network_that_does_not_take_the_sizes_it_would_grow_through_is_told(words: list[str], section: str) -> None:
    said = _tried("data.image_size=224", *words)
    assert said.startswith(f"{section} trains on images of 16")
    assert f"set {section}.progressive_stages=1 and {section}.train_image_size=null" in said
    assert "\n" not in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_page_for_a_gpu_can_be_tried_where_there_is_none() -> None:
    assert _tried("device=cuda", "rounds=0") == ""


@pytest.mark.parametrize("ndim", [1, 2, 4])
def test_weights_of_any_number_of_dimensions_are_tried(ndim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some optimisers take matrices alone."""

    class Picky(torch.optim.SGD):
        def step(self, *_: object) -> None:  # type: ignore[override]
            tried = [weight for group in self.param_groups for weight in group["params"] if weight.grad is not None]
            assert len(tried) < 6, "a step of a large network is as cheap as one of a small one"
            if any(weight.ndim == ndim for weight in tried):
                raise ValueError(f"weights of {ndim} dimensions")

    monkeypatch.setattr(trial, "build_optimizer", lambda network, *_: Picky(network.parameters()))
    assert f"weights of {ndim} dimensions" in _tried("rounds=0")


def test_what_the_run_does_not_train_is_not_tried() -> None:
    assert _tried("filter.model={backbones: [no_such_net]}") == ""
    assert _tried("student.model={backbones: [no_such_net]}", "rounds=0") == ""


@pytest.mark.slow
def test_a_run_is_refused_before_it_reads_an_image(tmp_path: Path) -> None:
    config = load_config(None, [f"student.model={VIT}"])
    with pytest.raises(ConfigError, match=re.escape("student.model: 'vit_tiny_patch16_224'")):
        run_all(config, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
