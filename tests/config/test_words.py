"""Words are taken as they were typed: what is text by its key is text, whatever YAML 1.1 would make of it."""

from pathlib import Path
from typing import Any

import pytest
from nstudent.config.file import check, load_config
from nstudent.config.yaml_text import as_names, dump_yaml, read_words
from nstudent.errors import ConfigError
from nstudent.taxonomy.tree import Taxonomy

ODD = [
    *("photos #2", "#2", "2024_05_01", "2024-05-01", "1e3", "007", "010", "0x1f", "12:30", "on", "off", "yes", "no"),
    *("null", "~", "true", "%p", "@p", "[x]", "{x}", "a: b", "a:", "- x", "*x", "&x", "!x", "|", ">", "a, b", "it's"),
    *(".5", ".nan", "=", "<<", "?", "é", "`x`", " x", "x ", "a\tb", "1_000", "2001-99-99", "!!int x", "---", "a\\b"),
]


@pytest.mark.parametrize("typed", ODD)
def test_a_key_of_text_takes_a_word_as_it_stands(typed: str) -> None:
    data = load_config(None, ["data.source=folder", f"data.root={typed}", f"data.unlabelled_root={typed}"]).data
    assert (data.root, data.unlabelled_root) == (typed, typed)
    assert load_config(None, [f"student.model.pretrained=x{typed}"]).student.model.pretrained == f"x{typed}"
    assert load_config(None, [f"teacher.optimizer={typed}"]).teacher.optimizer == typed


@pytest.mark.parametrize("typed", ["007", "2024", "1e3", "on", "2024-05-01", "null"])
def test_a_run_may_be_named_by_a_number_or_a_date(typed: str) -> None:
    assert load_config(None, [f"name={typed}"]).run_name == typed


@pytest.mark.parametrize(("typed", "text"), [('"photos #2"', "photos #2"), ("'007'", "007"), ("''", ""), ("'a", "'a")])
def test_quotes_around_the_whole_are_taken_off(typed: str, text: str) -> None:
    assert load_config(None, ["data.source=folder", f"data.root={typed}"]).data.root == text


def test_nothing_is_null(tmp_path: Path) -> None:
    page = tmp_path / "page.yaml"
    page.write_text("data: {source: folder, root: a, unlabelled_root: b}\n")
    assert load_config(page, ["data.unlabelled_root="]).data.unlabelled_root is None
    with pytest.raises(ConfigError, match=r"needs data\.root"):
        load_config(page, ["data.root="])


def test_a_key_of_text_or_truth() -> None:
    read: dict[str, Any] = {"true": True, "False": False, "1": "1", "weights.safetensors": "weights.safetensors"}
    for typed, value in read.items():
        assert load_config(None, [f"student.model.pretrained={typed}"]).student.model.pretrained == value
        members = load_config(None, [f"teacher.members=[{{pretrained: {typed}}}]"]).teacher.members
        assert members[0].model_dump()["pretrained"] == value


def test_entries_of_a_list_of_text_are_text() -> None:
    levels = load_config(None, ["data.levels=[on, 007, 2024-05-01, null, 1e3]", "rounds=0"]).data.levels
    assert levels == ("on", "007", "2024-05-01", "null", "1e3")
    assert load_config(None, ["student.model={backbones: [007, no]}"]).student.model.backbones == ("007", "no")


@pytest.mark.parametrize(
    "word", ["seed=3 # x", "data.levels=[a #1, b]", "data.taxonomy={A: [b] } # c", "seed=#3", "teacher.members=[{} #]"]
)
def test_a_comment_in_a_word_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="behind # YAML reads a comment: put the text that holds it in quotes"):
        load_config(None, [word])


def test_a_hash_that_is_no_comment() -> None:
    assert load_config(None, ["data.levels=[a#1, 'b #2', \"c #3\"]"]).data.levels == ("a#1", "b #2", "c #3")


@pytest.mark.parametrize("typed", ["010", "-010", "1:30", "00", "1:30.5", "0_1"])
def test_a_number_that_yaml_would_read_as_another_is_refused(typed: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"seed: '{typed}' is no number here"):
        load_config(None, [f"seed={typed}"])
    page = tmp_path / "page.yaml"
    page.write_text(f"student: {{epochs: {typed}}}\n")
    with pytest.raises(ConfigError, match=f"student: epochs: '{typed}' is no number"):
        load_config(page)


def test_a_date_is_no_number() -> None:
    with pytest.raises(ConfigError, match="seed is '2024-05-01': input should be a valid integer"):
        load_config(None, ["seed=2024-05-01"])


def test_a_page_takes_words_as_they_are_written_too(tmp_path: Path) -> None:
    page = tmp_path / "page.yaml"
    page.write_text("name: 2024-05-01\ndata: {source: folder, root: 010, table: on, unlabelled_root: null}  # mine\n")
    config = load_config(page)
    assert (config.name, config.data.root, config.data.table, config.data.unlabelled_root) == (
        "2024-05-01",
        "010",
        "on",
        None,
    )


NAMES = ["007", "010", "1", "1.0", "on", "no", "null", "~", "2024-05-01", "12:30", "1e3", "0x1f", ".nan", "true", "<<"]
TREE = "{1: [007, 010, on], no: {null: , 2024-05-01: [12:30]}}"


def test_class_names_are_text_at_every_depth_of_a_tree(tmp_path: Path) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(f"data:\n  levels: [a, b, c]\n  taxonomy: {TREE}\n")
    (tmp_path / "tree.yaml").write_text(TREE)
    wanted = {"1": ["007", "010", "on"], "no": {"null": None, "2024-05-01": ["12:30"]}}
    assert load_config(page).data.taxonomy == wanted
    assert load_config(None, [f"data.taxonomy={TREE}"]).data.taxonomy == wanted
    assert as_names(read_words(tmp_path / "tree.yaml")) == wanted
    kept = tmp_path / "config.yaml"
    kept.write_text(dump_yaml(load_config(page).model_dump(mode="json")))
    assert load_config(kept) == load_config(page)
    assert Taxonomy.from_tree(wanted, ("a", "b", "c")).classes[0] == ("1", "no")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_may_be_a_key_or_an_entry(name: str) -> None:
    tree = load_config(None, [f"data.taxonomy={{{name}: [{name}, b]}}"]).data.taxonomy
    assert tree == {name: [name, "b"]}


def test_a_tree_of_a_page_named_like_a_number(tmp_path: Path) -> None:
    assert load_config(None, ["data.taxonomy=2024-05-01"]).data.taxonomy == "2024-05-01"
    assert load_config(None, ["data.taxonomy=tree #2.yaml"]).data.taxonomy == "tree #2.yaml"


def test_a_name_that_is_no_text_is_refused() -> None:
    """As the shell hands over bytes that are no UTF-8."""
    for word in ("data.levels=[a, b\udcff]", "data.taxonomy={a\udcff: [b]}"):
        with pytest.raises(ConfigError, match="unacceptable character"):
            load_config(None, [word])
    with pytest.raises(ConfigError, match=r"data\.levels holds a name that is no text in UTF-8"):
        check({"data": {"levels": ["b\udcff"]}}, "here")
    root = load_config(None, ["data.source=folder", "data.root=b\udcff"])
    assert root.data.root == "b\udcff", "a path may be any bytes"


@pytest.mark.parametrize("key", ["labelled", "unlabelled", "validation", "test"])
def test_one_point_nought_is_neither_one_nor_all(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{key} is 1\.0, which could mean all or one"):
        load_config(None, [f"data.{key}=1.0"])
    config = load_config(None, [f"data.{key}=1"])
    (tmp_path / "config.yaml").write_text(dump_yaml(config.model_dump(mode="json")))
    assert load_config(tmp_path / "config.yaml") == config
    assert load_config(None, [f"data.{key}=0.9"]).data.model_dump()[key] == 0.9
