"""Pages and overrides: what they hold, and what is kept of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from nstudent.config.file import load_config
from nstudent.config.members import MEMBERS, MemberConfig
from nstudent.config.schema import Config, ModelConfig, Section
from nstudent.config.types import Count
from nstudent.config.yaml_text import dump_yaml
from refusals import key_of, page_of, problems

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "configs").glob("*.yaml"))


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
    config = load_config(page_of(tmp_path, "seed: 3\nstudent: {epochs: 8, noise: {cutmix: 0}}\n"))
    assert (config.seed, config.student.epochs, config.student.noise.cutmix) == (3, 8, 0.0)
    assert config.teacher == Config().teacher


def test_a_group_that_is_given_in_part_keeps_the_rest_of_its_section(tmp_path: Path) -> None:
    """A student's noise and network have defaults of their own: one key does not bring back the general ones."""
    words = ["student.noise.flip=true", "student.model.backbones=[resnet18]"]
    student, before = load_config(None, words).student, Config().student
    assert (before.noise.operations, before.model.head_width) == (2, 128)
    assert student.noise == before.noise.model_copy(update={"flip": True})
    assert (student.model.backbones, student.model.head_width) == (("resnet18",), 128)
    assert load_config(page_of(tmp_path, "student: {noise: {flip: yes}}\n")).student.noise == student.noise
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
    page = page_of(tmp_path, "student: {epochs: 8, batch_size: 16}\n")
    config = load_config(page, ["student.epochs=9", "teacher.noise.flip=true", "pseudolabel.threshold=[0.5, 0.6, 0.7]"])
    assert (config.student.epochs, config.student.batch_size) == (9, 16)
    assert config.teacher.noise.flip
    assert config.pseudolabel.threshold == (0.5, 0.6, 0.7)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\ufeffseed: 0\n"])
def test_a_page_without_keys_is_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_config(page_of(tmp_path, text)) == Config()


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
    assert load_config(page_of(tmp_path, text)) == config


class _Oracle(MemberConfig):
    """A member of another kind."""

    side: Count = 4


def test_a_member_of_another_kind_is_read_by_the_section_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEMBERS, "oracle", _Oracle)

    config = load_config(None, ["teacher.members=[{head_width: 3}, {kind: oracle, side: 2}, {kind: network}]"])

    assert config.teacher.members == (ModelConfig(head_width=3), _Oracle(side=2), ModelConfig())
    assert Config.model_validate(config.model_dump(mode="json")) == config
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert problems("teacher.members=[{kind: oracle, sid: 2}]") == [
        "teacher.members.0.sid: there is no such key (did you mean 'side'?)"
    ]
    assert key_of(*problems("teacher.members=[{kind: oracle, side: 0}]")) == "teacher.members.0.side"
    assert key_of(*problems("teacher.members=[{side: 1}]")) == "teacher.members.0.side"


def test_a_network_is_kept_without_its_kind() -> None:
    """Configurations of versions that knew no kinds are asked for the same."""
    (entry,) = load_config(None, ["teacher.members=[{kind: network}]"]).model_dump(mode="json")["teacher"]["members"]
    assert entry == ModelConfig().model_dump(mode="json")
    assert "kind" not in entry
