"""Pages as text: YAML's traps, sizes and depths, and whatever somebody may write."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.config.file import GONE, load_config, reload_config
from nstudent.config.schema import Config
from nstudent.config.yaml_text import dump_flow, parse_yaml
from nstudent.errors import ConfigError
from refusals import page_of, refused


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
        load_config(page_of(tmp_path, "# " + "x" * 1_000_001))
    with open(tmp_path / "sparse.yaml", "wb") as file:
        file.truncate(1 << 42)  # more than any memory
    with pytest.raises(ConfigError, match="1,000,000"):
        load_config(tmp_path / "sparse.yaml")


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2\n", "{seed: 1, seed: 2}", "student:\n  epochs: 1\n  epochs: 2\n"])
def test_a_key_that_stands_twice(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"line \d: the key '(seed|epochs)' stands twice"):
        load_config(page_of(tmp_path, text))


def test_an_alias_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 2: YAML aliases"):
        load_config(page_of(tmp_path, "teacher: &t {epochs: 3}\nstudent: *t\n"))


def test_an_alias_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    with pytest.raises(ConfigError, match="aliases"):
        load_config(page_of(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize("text", ["[" * 50_000, "{a: " * 50_000, "- " * 50_000, "[" * 5_000 + "]" * 5_000])
def test_deep_nesting_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_config(page_of(tmp_path, text))


def test_a_very_long_key_is_refused() -> None:
    refused(".".join(["seed", *["a"] * 5_000]) + "=1")


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
    assert reload_config(page_of(tmp_path, text)) == load_config(None, ["seed=3"])
    with pytest.raises(ConfigError, match=r"seeds: there is no such key \(did you mean 'seed'\?\)"):
        reload_config(page_of(tmp_path, "seeds: 3\n"))


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
