"""Keys and values that are refused, alone or beside others, and what is said of them."""

import re
from pathlib import Path

import pytest
from nstudent.config.file import load_config
from nstudent.config.schema import ConsistencyConfig, MetaConfig
from nstudent.config.yaml_text import dump_yaml
from nstudent.errors import ConfigError
from refusals import key_of, page_of, problems, refused


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("student.epoch=3", "student.epoch: there is no such key (did you mean 'epochs'?)"),
        ("stdent.epochs=3", "stdent: there is no such key (did you mean 'student'?)"),
        ("student.noise.cutmx=1", "student.noise.cutmx: there is no such key (did you mean 'cutmix'?)"),
        ("student.model.backbone=x", "student.model.backbone: there is no such key (did you mean 'backbones'?)"),
        (
            "teacher.members=[{backbone: x}]",
            "teacher.members.0.backbone: there is no such key (did you mean 'backbones'?)",
        ),
        (
            "teacher.members=[{kind: oracle}]",
            "teacher.members.0: kind: there is no 'oracle': choose from network, probe",
        ),
        ("clip_norm=3", "clip_norm: there is no such key (did you mean 'teacher.clip_norm'?)"),
        ("zzzz=3", "zzzz: there is no such key"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(word: str, said: str) -> None:
    assert problems(word) == [said]


def test_a_teacher_has_no_more_members_than_a_pool_of_classifiers_has_room_for() -> None:
    """More were refused after they had been trained."""
    assert len(load_config(None, [f"teacher.members={[{}] * 64}"]).teacher.members) == 64
    (said,) = problems(f"teacher.members={[{}] * 65}")
    assert "teacher.members" in said
    assert "64" in said


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    page = page_of(tmp_path, "seed: x\nrounds: -1\nstudent: {epoch: 3, epochs: 0}\n")
    with pytest.raises(ConfigError, match="4 problems") as error:
        load_config(page)
    first, *listed = str(error.value).splitlines()
    assert first.startswith(str(page))
    assert {key_of(line.strip()) for line in listed} == {"seed", "rounds", "student.epoch", "student.epochs"}


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("seed=x", "seed"),
        ("seed=1.5", "seed"),
        ("seed=-1", "seed"),
        ("seed=.nan", "seed"),
        ("rounds=[1]", "rounds"),
        ("teacher.learning_rate=.inf", "teacher.learning_rate"),
        ("teacher.learning_rate=0", "teacher.learning_rate"),
        ("teacher.clip_norm=abc", "teacher.clip_norm"),
        ("student.noise.flip=7", "student.noise.flip"),
        ("data.source=jpeg", "data.source"),
        ("data.image_size=4", "data.image_size"),
        ("data.image_size=1025", "data.image_size"),
        ("data.max_pixels=178_000_001", "data.max_pixels"),
        ("data.unlabelled=-1", "data.unlabelled"),
        ("data.validation=0", "data.validation"),
        ("data=1", "data"),
        ("student=", "student"),
        ("seed.a=1", "seed"),
        ("name=../up", "name"),
        ("name=''", "name"),
        ("data.taxonomy=[5]", "data.taxonomy"),
        ("pseudolabel.threshold=high", "pseudolabel.threshold"),
        ("teacher.members=[{backbone: x}]", "teacher.members.0.backbone"),
        ("teacher.members=[{pretrained: [1]}]", "teacher.members.0.pretrained"),
        ("teacher.members=[{}, {kind: oracle}]", "teacher.members.1"),
        ("teacher.members=[{kind: [network]}]", "teacher.members.0"),
        ("teacher.members=[3]", "teacher.members.0"),
        ("student.model.kind=network", "student.model.kind"),
    ],
)
def test_a_wrong_value_is_named_by_its_key_alone(word: str, key: str) -> None:
    """One line a key, and only words that the user can have written: no names of pydantic's types."""
    assert [key_of(problem) for problem in problems(word)] == [key]


def test_the_largest_images_that_are_allowed() -> None:
    config = load_config(None, ["data.image_size=1024", "data.max_pixels=178_000_000"])
    assert (config.data.image_size, config.data.max_pixels) == (1024, 178_000_000)


def test_a_truth_value_is_no_number() -> None:
    """YAML reads 'epochs: on' as true, and true as 1 would be an epoch."""
    assert key_of(*problems("student.epochs=on")) == "student.epochs"


def test_the_defaults_of_name_and_labels_follow_the_source() -> None:
    config = load_config(None, ["data.source=folder", "data.root=photos"])
    assert (config.run_name, config.data.labelled_amount) == ("folder", None)
    assert load_config(None, ["data.labelled=all"]).data.labelled_amount is None
    assert load_config(None, ["data.labelled=0.5", "name=mine"]).data.labelled_amount == 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.source=folder"], "data.root"),
        (["data.source=csv", "data.root=x"], "data.table"),
        (["data.source=idx", "data.root=x"], "data.class_paths"),
        (["data.levels=[a, a]"], "data.levels"),
        (["data.levels=[]"], "data.levels"),
        (["data.levels=[a, '']"], "data.levels"),
        (['data.levels=["\n"]'], "data.levels"),
        (["pseudolabel.threshold=[0.5]"], "pseudolabel.threshold has 1 numbers for 3 levels"),
        (["teacher.level_weights=[1, 2]"], "teacher.level_weights has 2 numbers for 3 levels"),
        (["filter.level_weights=[1, 2]"], "filter.level_weights"),
        (["student.level_weights=[1, 2]"], "student.level_weights"),
        (["teacher.cross_fit=true"], "data.folds is 0, teacher.members has 2"),
        (["teacher.cross_fit=true", "data.folds=2"], "three or more of both: data.folds is 2, teacher.members has 2"),
        (["teacher.cross_fit=true", "data.folds=3"], "a fold for each member"),
        (["teacher.cross_fit=true", "teacher.members=[{}, {}, {}]"], "data.folds is 0, teacher.members has 3"),
        (["teacher.cross_fit=true", "teacher.members=[{}, {}, {}]", "data.folds=4"], "data.folds is 4"),
    ],
)
def test_keys_that_do_not_go_together(words: list[str], said: str) -> None:
    assert said in refused(*words)


def test_folds_and_members_that_fit_can_be_cross_fitted_or_not() -> None:
    fitting = ("data.folds=3", "teacher.members=[{}, {}, {}]")
    assert load_config(None, [*fitting, "teacher.cross_fit=true"]).teacher.cross_fit
    assert not load_config(None, fitting).teacher.cross_fit


@pytest.mark.parametrize("word", ["seed", "=1", "", "--seed", "epochs"])
def test_a_word_that_is_no_override(word: str) -> None:
    assert "write key=value" in refused(word)


def test_an_override_below_a_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed is a value, it has no keys"):
        load_config(page_of(tmp_path, "seed: 3\n"), ["seed.deep=1"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["teacher.hxe_alpha=0.2"], "hxe_alpha is a key of loss=hxe, and loss is cross_entropy: leave it out"),
        (["student.loss=bce", "student.hxe_first=top"], "hxe_first is a key of loss=hxe, and loss is bce"),
        (
            ["filter.loss=hxe", "filter.soft_label_beta=4"],
            "soft_label_beta is a key of loss=soft_labels",
        ),
        (["teacher.tree_path_weight=2"], "tree_path_weight is a key of loss=tree_path_kl"),
        (
            ["student.class_weights=balanced", "student.class_weight_beta=0.9"],
            "a key of class_weights=effective_number",
        ),
        (
            ["student.loss=bce", "student.logit_adjustment=1"],
            "logit_adjustment is for losses of a softmax",
        ),
        (["student.loss=mcm"], "cannot be pooled with others: set teacher.loss and student.loss"),
        (["filter.loss=mcm"], "the filter cannot judge with loss=mcm"),
        (["teacher.loss=mcm", "student.loss=mcm", "filter.enabled=true"], "the filter cannot judge with loss=mcm"),
        (["teacher.class_weights=balanced", "teacher.logit_adjustment=1"], "both make up for rare classes: choose one"),
    ],
)
def test_a_key_that_means_nothing_beside_the_others_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(None, words)


@pytest.mark.parametrize(
    "words",
    [
        ["teacher.loss=hxe", "teacher.hxe_alpha=0", "teacher.hxe_first=bottom"],
        ["student.loss=soft_labels", "student.soft_label_beta=4", "student.logit_adjustment=1"],
        ["teacher.loss=mcm", "student.loss=mcm"],
        ["filter.loss=tree_path_kl", "filter.tree_path_weight=0.5"],
        ["student.class_weights=effective_number", "student.class_weight_beta=0"],
    ],
)
def test_a_key_of_a_loss_is_taken_beside_that_loss(words: list[str]) -> None:
    config = load_config(None, words).model_dump(mode="json")
    for word in words:
        key, _, value = word.partition("=")
        section, _, name = key.partition(".")
        assert str(config[section][name]) in (value, f"{value}.0")


@pytest.mark.parametrize("loss", ["bce", "mcm"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("teacher.members: the head flat", ["teacher.members=[{}, {head: flat}]"]),
        ("teacher.members: the head hd_cnn", ["teacher.members=[{head: hd_cnn}]"]),
        ("student.model: the head flat", ["student.model.head=flat"]),
        ("filter.model: the head hd_cnn", ["filter.model.head=hd_cnn"]),
    ],
)
def test_a_head_of_log_probabilities_is_refused_with_a_loss_that_asks_of_every_class_by_itself(
    loss: str, name: str, words: list[str]
) -> None:
    """The logits of its levels are logarithms of probabilities: a yes is never more likely than a no."""
    asked = [f"{section}.loss={loss}" for section in ("teacher", "student")]
    asked += ["filter.loss=bce"] if name.startswith("filter") else []
    with pytest.raises(ConfigError, match=f"{re.escape(name)} compares all classes"):
        load_config(None, [*asked, *words])
    load_config(None, [*words, "teacher.loss=hxe", "student.loss=soft_labels"])


def test_the_coarse_prior_is_refused_with_a_loss_that_has_no_softmax() -> None:
    with pytest.raises(ConfigError, match="coarse_prior_weight is for losses of a softmax, and loss is bce"):
        load_config(None, ["teacher.loss=bce", "teacher.coarse_prior_weight=20"])


@pytest.mark.parametrize("head", ["flat", "hd_cnn"])
def test_logits_that_are_log_probabilities_are_not_normalised(head: str) -> None:
    with pytest.raises(ConfigError, match=f"logit_norm divides logits by their length, and those of the head {head}"):
        load_config(None, [f"student.model.head={head}", "student.model.logit_norm=0.04"])


def test_own_beliefs_are_off_until_a_key_of_them_is_given() -> None:
    assert load_config(None, []).student.consistency is None
    assert load_config(None, ["student.consistency={}"]).student.consistency == ConsistencyConfig()
    given = load_config(None, ["student.consistency.share=0.5"]).student.consistency
    assert given == ConsistencyConfig(share=0.5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["student.consistency.begins=0.7"], r"begins \(0\.7\) is not before full \(0\.7\)"),
        (
            ["student.consistency={}", "student.loss=mcm", "teacher.loss=mcm"],
            "consistency reads the networks of a softmax, and loss is mcm: set consistency to null",
        ),
    ],
)
def test_own_beliefs_that_cannot_be_followed_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, words)


@pytest.mark.parametrize("name", ["my photos", "-a", ".hidden", "a/b", "a\n"])
def test_a_name_that_no_folder_is_given_is_refused_in_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a folder is called that: use letters, digits") as refused:
        load_config(page_of(tmp_path, dump_yaml({"name": name})))
    assert "pattern" not in str(refused.value)


def test_a_name_in_any_script_is_taken() -> None:
    assert load_config(None, ["name=Früchte_2.1"]).name == "Früchte_2.1"


def test_a_student_learns_by_meta_pseudo_labels_if_the_method_is_named() -> None:
    assert load_config(None, []).student.meta_pseudo_labels is None
    found = load_config(None, ["student.method=meta_pseudo_labels"]).student
    assert (found.meta, found.meta_pseudo_labels) == (None, MetaConfig())
    given = load_config(None, ["student.method=meta_pseudo_labels", "student.meta.feedback=2.0"]).student
    assert given.meta_pseudo_labels == MetaConfig(feedback=2.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rounds=0"], "trains a student on unlabelled images, and rounds=0 none: set rounds=1"),
        (["student.consistency={}"], "method=meta_pseudo_labels and consistency both replace the stored labels"),
        (["student.loss=bce"], "is derived for loss=cross_entropy, and loss is bce"),
        (["student.unlabelled_weight=2.0"], "leave unlabelled_weight out"),
        (
            ["student.finish_epochs=1", "student.train_image_size=16"],
            "method=meta_pseudo_labels ends with meta.finetune_epochs: set finish_epochs=0",
        ),
        (["pseudolabel.targets=hard"], "does not learn the stored labels, which pseudolabel.targets is about"),
        (["student.method=noisy_student", "student.meta={}"], "meta is for method=meta_pseudo_labels"),
        (["student.meta.baseline=1.0"], "less than 1"),
    ],
)
def test_what_does_not_go_with_meta_pseudo_labels_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, ["student.method=meta_pseudo_labels", *words])
