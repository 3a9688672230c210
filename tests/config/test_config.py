"""Pages, overrides, and every way to get them wrong."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.config.file import GONE, load_config, reload_config
from nstudent.config.members import MEMBERS, MemberConfig
from nstudent.config.schema import Config, ConsistencyConfig, MetaConfig, ModelConfig, Section
from nstudent.config.types import Count
from nstudent.config.yaml_text import dump_flow, dump_yaml, parse_yaml
from nstudent.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "configs").glob("*.yaml"))


def _refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(None, overrides)
    return str(error.value)


def _problems(*overrides: str) -> list[str]:
    """The single problem stands in the first line, several below it."""
    first, *listed = _refused(*overrides).removeprefix("the command line: ").splitlines()
    return [line.strip() for line in listed] or [first]


def _key(problem: str) -> str:
    return re.split(r": | is ", problem)[0]


def _page(folder: Path, text: str) -> Path:
    path = folder / "page.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- the defaults and the shipped pages ---


def test_the_defaults_are_the_embedded_run() -> None:
    config = load_config()
    assert (config.run_name, config.data.source, config.data.labelled_amount) == ("digits", "digits", 100)
    assert (config.seed, config.rounds) == (0, 1)
    assert config == Config()


def test_pages_are_shipped() -> None:
    assert PAGES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_shipped_page_loads_and_begins_with_its_command(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    assert first.startswith(f"# nstudent run-all --config configs/{path.name}")
    # Below the command: what the run is, its hardware, time and score.
    assert second.startswith("# ")


def _sections(section: type[Section], name: str) -> Iterator[tuple[str, type[Section]]]:
    yield name, section
    for key, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _sections(field.annotation, f"{name}.{key}")


@pytest.mark.parametrize(
    "section",
    # In one order, so that several processes collect the same tests.
    dict.fromkeys([kind for _, kind in _sections(Config, "config")] + list(MEMBERS.values())),
    ids=lambda kind: kind.__name__,
)
def test_every_key_is_explained(section: type[Section]) -> None:
    assert section.__dict__["__doc__"]
    for key, field in section.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        assert is_section or (field.description or "").endswith("."), f"{section.__name__}.{key}"


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config().seed = 1  # type: ignore[misc]


# --- pages and overrides ---


def test_a_page_holds_only_what_differs(tmp_path: Path) -> None:
    config = load_config(_page(tmp_path, "seed: 3\nstudent: {epochs: 8, noise: {cutmix: 0}}\n"))
    assert (config.seed, config.student.epochs, config.student.noise.cutmix) == (3, 8, 0.0)
    assert config.teacher == Config().teacher


def test_a_group_that_is_given_in_part_keeps_the_rest_of_its_section(tmp_path: Path) -> None:
    """A student's noise and network have defaults of their own: one key does not bring back the general ones."""
    words = ["student.noise.flip=true", "student.model.backbones=[resnet18]"]
    student, before = load_config(None, words).student, Config().student
    assert (before.noise.operations, before.model.head_width) == (2, 128)
    assert student.noise == before.noise.model_copy(update={"flip": True})
    assert (student.model.backbones, student.model.head_width) == (("resnet18",), 128)
    assert load_config(_page(tmp_path, "student: {noise: {flip: yes}}\n")).student.noise == student.noise
    assert load_config(None, ["teacher.noise.flip=true"]).teacher.noise.operations == 0
    assert load_config(None, ["student.noise={}"]) == Config()


def test_the_options_of_the_default_backbones_hold_for_no_others() -> None:
    """Channels of one network are no option of another; who changes only the head keeps the network."""

    class Owner(Section):
        model: ModelConfig = ModelConfig(backbone_options={"depth": 3}, stem="small", head_width=7)

    assert Owner.model_validate({"model": {"backbones": ["resnet18"]}}).model == ModelConfig(
        backbones=("resnet18",), head_width=7
    )
    other_head = Owner.model_validate({"model": {"head": "independent"}}).model
    assert (other_head.backbone_options, other_head.stem, other_head.head_width) == ({"depth": 3}, "small", 7)
    assert Owner.model_validate({"model": {"backbones": ["resnet18"], "stem": "small"}}).model.stem == "small"


def test_overrides_win_over_the_page_and_keep_its_neighbours(tmp_path: Path) -> None:
    page = _page(tmp_path, "student: {epochs: 8, batch_size: 16}\n")
    config = load_config(page, ["student.epochs=9", "teacher.noise.flip=true", "pseudolabel.threshold=[0.5, 0.6, 0.7]"])
    assert (config.student.epochs, config.student.batch_size) == (9, 16)
    assert config.teacher.noise.flip
    assert config.pseudolabel.threshold == (0.5, 0.6, 0.7)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\ufeffseed: 0\n"])
def test_a_page_without_keys_is_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_config(_page(tmp_path, text)) == Config()


@pytest.mark.parametrize(
    ("word", "value"), [("1e-3", 0.001), ("2E-2", 0.02), ("1.e-3", 0.001), ("1.5e-3", 0.0015), ("0.25", 0.25), ("1", 1)]
)
def test_numbers_are_numbers(word: str, value: float) -> None:
    """YAML 1.1 reads 1e-3 as a string."""
    assert load_config(None, [f"teacher.learning_rate={word}"]).teacher.learning_rate == value


@pytest.mark.parametrize(
    "name", ["1e3", "5E2", "no", "12:30", "0x1f", "null", "~", "1_000", "2001-01-01", "a: b", "é", "-", "'", " x "]
)
def test_the_kept_configuration_reads_back_as_it_was(tmp_path: Path, name: str) -> None:
    """A run folder's config.yaml is written by one YAML dialect and read by another."""
    config = Config.model_validate({"data": {"levels": [name, "mid", "fine"]}})
    text = dump_yaml(config.model_dump(mode="json"))
    assert load_config(_page(tmp_path, text)) == config


class _Oracle(MemberConfig):
    """A member of another kind."""

    side: Count = 4


def test_a_member_of_another_kind_is_read_by_the_section_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEMBERS, "oracle", _Oracle)

    config = load_config(None, ["teacher.members=[{head_width: 3}, {kind: oracle, side: 2}, {kind: network}]"])

    assert config.teacher.members == (ModelConfig(head_width=3), _Oracle(side=2), ModelConfig())
    assert Config.model_validate(config.model_dump(mode="json")) == config
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert _problems("teacher.members=[{kind: oracle, sid: 2}]") == [
        "teacher.members.0.sid: there is no such key (did you mean 'side'?)"
    ]
    assert _key(*_problems("teacher.members=[{kind: oracle, side: 0}]")) == "teacher.members.0.side"
    assert _key(*_problems("teacher.members=[{side: 1}]")) == "teacher.members.0.side"


def test_a_network_is_kept_without_its_kind() -> None:
    """Configurations of versions that knew no kinds are asked for the same."""
    (entry,) = load_config(None, ["teacher.members=[{kind: network}]"]).model_dump(mode="json")["teacher"]["members"]
    assert entry == ModelConfig().model_dump(mode="json")
    assert "kind" not in entry


# --- what is refused, and how ---


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
    assert _problems(word) == [said]


def test_a_teacher_has_no_more_members_than_a_pool_of_classifiers_has_room_for() -> None:
    """More were refused after they had been trained."""
    assert len(load_config(None, [f"teacher.members={[{}] * 64}"]).teacher.members) == 64
    (said,) = _problems(f"teacher.members={[{}] * 65}")
    assert "teacher.members" in said
    assert "64" in said


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    page = _page(tmp_path, "seed: x\nrounds: -1\nstudent: {epoch: 3, epochs: 0}\n")
    with pytest.raises(ConfigError, match="4 problems") as error:
        load_config(page)
    first, *listed = str(error.value).splitlines()
    assert first.startswith(str(page))
    assert {_key(line.strip()) for line in listed} == {"seed", "rounds", "student.epoch", "student.epochs"}


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
    assert [_key(problem) for problem in _problems(word)] == [key]


def test_the_largest_images_that_are_allowed() -> None:
    config = load_config(None, ["data.image_size=1024", "data.max_pixels=178_000_000"])
    assert (config.data.image_size, config.data.max_pixels) == (1024, 178_000_000)


def test_a_truth_value_is_no_number() -> None:
    """YAML reads 'epochs: on' as true, and true as 1 would be an epoch."""
    assert _key(*_problems("student.epochs=on")) == "student.epochs"


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
    assert said in _refused(*words)


def test_folds_and_members_that_fit_can_be_cross_fitted_or_not() -> None:
    fitting = ("data.folds=3", "teacher.members=[{}, {}, {}]")
    assert load_config(None, [*fitting, "teacher.cross_fit=true"]).teacher.cross_fit
    assert not load_config(None, fitting).teacher.cross_fit


@pytest.mark.parametrize("word", ["seed", "=1", "", "--seed", "epochs"])
def test_a_word_that_is_no_override(word: str) -> None:
    assert "write key=value" in _refused(word)


def test_an_override_below_a_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed is a value, it has no keys"):
        load_config(_page(tmp_path, "seed: 3\n"), ["seed.deep=1"])


@pytest.mark.parametrize("content", [b"- 1\n- 2\n", b"just text\n", b"3\n"])
def test_a_page_that_holds_no_keys(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"page\.yaml holds no keys"):
        load_config(path)


def test_a_page_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.yaml: No such file"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "latin.yaml")


def test_a_page_of_many_megabytes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1,000,000"):
        load_config(_page(tmp_path, "# " + "x" * 1_000_001))
    with open(tmp_path / "sparse.yaml", "wb") as file:
        file.truncate(1 << 42)  # more than any memory
    with pytest.raises(ConfigError, match="1,000,000"):
        load_config(tmp_path / "sparse.yaml")


# --- YAML's traps ---


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2\n", "{seed: 1, seed: 2}", "student:\n  epochs: 1\n  epochs: 2\n"])
def test_a_key_that_stands_twice(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"line \d: the key '(seed|epochs)' stands twice"):
        load_config(_page(tmp_path, text))


def test_an_alias_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 2: YAML aliases"):
        load_config(_page(tmp_path, "teacher: &t {epochs: 3}\nstudent: *t\n"))


def test_an_alias_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    with pytest.raises(ConfigError, match="aliases"):
        load_config(_page(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize("text", ["[" * 50_000, "{a: " * 50_000, "- " * 50_000, "[" * 5_000 + "]" * 5_000])
def test_deep_nesting_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_config(_page(tmp_path, text))


def test_a_very_long_key_is_refused() -> None:
    _refused(".".join(["seed", *["a"] * 5_000]) + "=1")


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system [true]",
        "!!python/name:os.system",
        "!local x",
        "? [a]\n: 1",
        "? {a: 1}\n: 2",
        "!!map [a]",
        "!!set [a]",
        "!!int ''",
        "!!int '-'",
        "!!float ''",
        "!!bool maybe",
        "9" * 5_000,
        "\0",
        "a: b: c",
        "'open",
        "\t- x",
        "010",
        "1:30",
    ],
)
def test_yaml_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^page"):
        parse_yaml(text, "page")


# --- for every text ---

_TOKENS = [
    *("seed", "student", "epochs", "name", "data", "taxonomy", "teacher", "members"),
    *(": ", ":\n  ", "\n", "- ", "? ", ", ", "[", "]", "{", "}", "'", '"', "#", "|\n", "&a ", "*a", "<<: ", "---\n"),
    *("1", "1e3", "-2", ".nan", "~", "yes", "0x", "12:30", "2001-01-01", "!!int ", "!!set ", "!!bool ", "!!str ", "é"),
]
_texts = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(_TOKENS), max_size=12).map("".join))


@pytest.mark.slow
@settings(max_examples=300)
@given(_texts)
def test_any_text_is_a_value_or_a_config_error(text: str) -> None:
    said = "page"
    try:
        parse_yaml(text, "page")
    except ConfigError as error:
        said = str(error)
    assert said.startswith("page")


@given(_texts)
def test_any_page_is_a_config_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config: Any = load_config(path)
    except ConfigError:
        return
    assert isinstance(config, Config)


@given(st.sampled_from(["seed", "data.taxonomy", "teacher.members", "pseudolabel.threshold", "name", "x.y"]), _texts)
def test_any_override_is_a_config_or_a_config_error(key: str, text: str) -> None:
    try:
        config: Any = load_config(None, [f"{key}={text}"])
    except ConfigError:
        return
    assert isinstance(config, Config)


@pytest.mark.parametrize("name", GONE)
def test_a_key_that_is_gone_says_why_and_what_to_do(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(None, [f"{name}=0.5"])
    assert str(refused.value) == f"the command line: {name}: this key is gone, because {GONE[name]}: delete it"


def test_the_configuration_that_an_earlier_version_kept_with_its_run_is_read_without_what_is_gone(
    tmp_path: Path,
) -> None:
    text = "seed: 3\n" + "".join(f"{section}: {{{key}: 0.5}}\n" for section, key in (name.split(".") for name in GONE))
    assert reload_config(_page(tmp_path, text)) == load_config(None, ["seed=3"])
    with pytest.raises(ConfigError, match=r"seeds: there is no such key \(did you mean 'seed'\?\)"):
        reload_config(_page(tmp_path, "seeds: 3\n"))


@pytest.mark.parametrize(
    "value",
    [
        *(
            1e-05,
            1e22,
            None,
            True,
            3,
            "007",
            "2024-01-01",
            "on",
            "a: b",
            "#",
            "it's",
            "two\nlines",
            "\x1b[2J",
            "\u202e",
        ),
        *(["a\nb", 1], {"007": [{"q": "#"}, "😀\u202e"]}, "long " * 100, "\udc80", [], {}, ""),
    ],
)
def test_a_value_on_one_line_is_read_back_as_it_was(value: Any) -> None:
    text = dump_flow(value)
    assert text.isprintable()
    assert parse_yaml(text, "it") == value
    assert parse_yaml(f"{{key: {text}}}", "it") == {"key": value}


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
        load_config(_page(tmp_path, dump_yaml({"name": name})))
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
