"""Where each value comes from, and that the page which says so is the configuration that it describes."""

from pathlib import Path

import pytest
from nstudent.config.file import load_config
from nstudent.config.origins import as_page, resolved

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "configs").glob("*.yaml"))
PAGE = """
name: mine
teacher:
  members:
    - {backbones: [a], pretrained: true}
    - {head_width: 3}
  noise: {flip: true, erase: 0.1}
data: {taxonomy: {007: {b: [c]}}}
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(PAGE)
    return path


def _origins(path: Path | None, *words: str) -> dict[str, str]:
    return {line.key: Path(line.origin).name for line in resolved(path, words)}


def test_a_value_comes_from_the_default_the_page_or_the_command_line(page: Path) -> None:
    found = _origins(page, "seed=3", "teacher.noise.shift=0.2")
    assert {key: found[key] for key in ("name", "seed", "rounds", "teacher.noise.shift", "teacher.noise.flip")} == {
        "name": "mine.yaml",
        "seed": "command line",
        "rounds": "default",
        "teacher.noise.shift": "command line",
        "teacher.noise.flip": "mine.yaml",
    }


def test_a_word_counts_over_the_page_and_a_group_over_all_of_its_keys(page: Path) -> None:
    assert _origins(page, "teacher.noise.flip=false")["teacher.noise.flip"] == "command line"
    found = _origins(page, "teacher.noise={flip: false}")
    assert (found["teacher.noise.flip"], found["teacher.noise.erase"]) == ("command line", "default")


def test_each_member_of_a_list_says_which_of_its_keys_were_given(page: Path) -> None:
    found = _origins(page)
    assert found["teacher.members.0.backbones"] == "mine.yaml"
    assert found["teacher.members.1.backbones"] == "default"
    assert found["teacher.members.1.head_width"] == "mine.yaml"
    # A group that is one value has one origin.
    assert found["data.taxonomy"] == "mine.yaml"


def test_a_value_that_is_given_as_it_is_by_default_was_given_all_the_same() -> None:
    assert _origins(None, "rounds=1")["rounds"] == "command line"


@pytest.mark.parametrize("changed", [False, True])
def test_the_page_is_the_configuration_that_it_shows(page: Path, tmp_path: Path, changed: bool) -> None:
    words = ["student.noise={flip: true}", "data.levels=[a, b]", "student.learning_rate=1e-05"]
    for path in (page, *PAGES):
        shown = tmp_path / "shown.yaml"
        shown.write_text(as_page(resolved(path, words), changed=changed))
        assert load_config(shown) == load_config(path, words)


def test_what_has_changed_alone_is_shown_if_that_is_asked_for(page: Path) -> None:
    lines = as_page(resolved(page, ["seed=3"]), changed=True).splitlines()
    assert [line.split("#")[0].strip() for line in lines] == [
        *("name: mine", "seed: 3", "data:", "taxonomy: {'007': {b: [c]}}", "teacher:", "noise:"),
        *("flip: true", "erase: 0.1", "members:", "- backbones: [a]", "pretrained: true", "- head_width: 3"),
    ]
    assert as_page(resolved(None, []), changed=True) == ""
