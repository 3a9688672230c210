"""Heads, losses and decoders that do not go together: the complete list, refused in one line before any training."""

from itertools import product

import pytest
from nstudent.config.file import load_config
from nstudent.errors import ConfigError
from nstudent.labels.decoders import DECODERS
from nstudent.models.heads import HEADS
from nstudent.training.losses import LOSSES
from nstudent.training.schedules import LEVEL_SCHEDULES

REFUSED_HEAD_AND_LOSS = {("flat", "bce"), ("flat", "mcm"), ("hd_cnn", "bce"), ("hd_cnn", "mcm")}
REFUSED_WITHOUT_NOTHING = {"majority", "stop_depth"}
"""Decoders that need an output for 'nothing'."""
REFUSED_ON_ONE_LEVEL = {"hd_cnn", "branching"}
REFUSED_WITH_LOGIT_NORM = {"flat", "hd_cnn"}


def refusal(*words: str) -> str | None:
    """What is said against a configuration; ``None`` if it is taken."""
    try:
        load_config(None, words)
    except ConfigError as error:
        said = str(error)
        assert "\n" not in said
        return said
    return None


def of_all(key: str, value: str) -> list[str]:
    return [f"{section}.{key}={value}" for section in ("teacher", "student")]


def heads(head: str, more: str = "") -> list[str]:
    model = f"{{head: {head}{more}}}"
    return [f"teacher.members=[{model}]", f"student.model={model}", f"filter.model={model}"]


@pytest.mark.parametrize(("head", "loss"), list(product(HEADS, LOSSES)))
def test_heads_and_losses(head: str, loss: str) -> None:
    said = refusal(*heads(head), *of_all("loss", loss))
    assert (said is not None) == ((head, loss) in REFUSED_HEAD_AND_LOSS), said
    assert said is None or (head in said and loss in said)


@pytest.mark.parametrize("section", ["teacher.members=[{head: HEAD}]", "student.model={head: HEAD}"])
def test_a_head_is_held_to_the_loss_of_its_own_training(section: str) -> None:
    name = section.split(".")[0]
    assert refusal(section.replace("HEAD", "flat"), f"{name}.loss=bce") is not None
    other = "student" if name == "teacher" else "teacher"
    assert refusal(section.replace("HEAD", "flat"), f"{other}.loss=bce") is None
    assert refusal("filter.model={head: hd_cnn}", "filter.loss=bce") is not None


@pytest.mark.parametrize("loss", LOSSES)
def test_decoders_go_with_every_loss_and_some_need_an_output_for_nothing(loss: str) -> None:
    for decoder, absent in product(["auto", *DECODERS], ["ignore", "class"]):
        said = refusal(f"decoder={decoder}", f"absent={absent}", *of_all("loss", loss))
        assert (said is not None) == (absent == "ignore" and decoder in REFUSED_WITHOUT_NOTHING), (decoder, absent)


@pytest.mark.parametrize("head", HEADS)
def test_heads_and_what_changes_their_logits(head: str) -> None:
    assert (refusal(heads(head, ", logit_norm: 0.1")[0]) is not None) == (head in REFUSED_WITH_LOGIT_NORM)
    assert (refusal(heads(head, ", routing_threshold: 0.1")[0]) is not None) == (head != "hd_cnn")


@pytest.mark.parametrize("head", HEADS)
def test_heads_that_divide_the_levels_need_two(head: str) -> None:
    one = ["data.source=folder", "data.root=photos", "data.levels=[kind]"]
    said = refusal(*one, *heads(head))
    assert (said is not None) == (head in REFUSED_ON_ONE_LEVEL), said
    assert refusal(*one[:2], "data.levels=[kind, sort]", *heads(head)) is None


@pytest.mark.parametrize("name", LEVEL_SCHEDULES)
@pytest.mark.parametrize("section", ["teacher", "student", "filter"])
def test_a_schedule_of_levels_needs_two(section: str, name: str) -> None:
    one = ["data.source=folder", "data.root=photos", "data.levels=[kind]"]
    said = refusal(*one, f"{section}.level_schedule={name}")
    assert (said is not None) == (name != "constant")
    assert said is None or f"{section}.level_schedule" in said


@pytest.mark.parametrize("loss", LOSSES)
def test_keys_beside_a_loss(loss: str) -> None:
    alone = loss in ("bce", "mcm")
    for key, value in (("logit_adjustment", "1"), ("coarse_prior_weight", "20")):
        assert (refusal(*of_all("loss", loss), f"teacher.{key}={value}") is not None) == alone
    own = {"hxe_alpha": "hxe", "hxe_first": "hxe", "soft_label_beta": "soft_labels", "tree_path_weight": "tree_path_kl"}
    for key, of in own.items():
        value = "top" if key == "hxe_first" else "1"
        assert (refusal(*of_all("loss", loss), f"teacher.{key}={value}") is not None) == (loss != of)
    assert (refusal(*of_all("loss", loss), "filter.enabled=true") is not None) == (loss == "mcm")
    assert (refusal(f"teacher.loss={loss}", "student.loss=cross_entropy") is not None) == (loss == "mcm")


@pytest.mark.parametrize("section", ["teacher", "student", "filter"])
def test_weights_of_classes_and_the_prior_of_the_first_level_go_by_one_frequency(section: str) -> None:
    prior, balanced = f"{section}.coarse_prior_weight=20", f"{section}.class_weights=balanced"
    for other in (balanced, f"{section}.class_weights=effective_number", f"{section}.logit_adjustment=1"):
        said = refusal(prior, other)
        assert said is not None
        assert "coarse_prior_weight" in said
        assert other.partition(".")[2].partition("=")[0] in said
        assert refusal(other) is None
    assert refusal(prior) is None
    for key in ("class_weight_cap=3", "class_weight_missing=zero"):
        said = refusal(f"{section}.{key}")
        assert said is not None
        assert f"{key.partition('=')[0]} is a key of class_weights" in said
        assert refusal(f"{section}.{key}", balanced) is None
