"""``nstudent config`` and what the command line says of itself."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import typer.main
from nstudent.cli import app
from nstudent.config.explained import all_keys
from nstudent.config.file import load_config

Command = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """``nstudent ...`` in a process of its own, in an empty folder and as wide as a terminal of 80 columns."""

    def run(*arguments: str) -> CompletedProcess[str]:
        words = [sys.executable, "-m", "nstudent", *arguments]
        environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_the_configuration_is_shown_with_its_origins(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: {labelled: 50}\n")
    done = command("config", "show", "--config", "mine.yaml", "seed=3", "--changed")
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        *("seed: 3 # command line", "data:", "labelled: 50.0 # mine.yaml"),
    ]
    whole = command("config", "show", "--config", "mine.yaml")
    (tmp_path / "shown.yaml").write_text(whole.stdout)
    assert load_config(tmp_path / "shown.yaml") == load_config(tmp_path / "mine.yaml")
    assert command("config", "show", "sed=3").stderr.startswith("nstudent: the command line: sed: there is no such key")


@pytest.mark.slow
def test_a_key_is_explained_within_80_columns(command: Command) -> None:
    groups = "", "data", "student.noise", "teacher.members", "probe.members"
    for key in (*groups, "student.model.backbone_options", "data.image_size", "teacher.members.image_size"):
        done = command("config", "explain", *([key] if key else []))
        assert done.returncode == 0, done.stderr
        assert max(map(len, done.stdout.splitlines())) <= 80
    assert "takes:    a whole number from 8 to 1024" in command("config", "explain", "data.image_size").stdout
    kinds = [line for line in command("config", "explain", "probe.members").stdout.splitlines() if "(kind: " in line]
    assert kinds == ["probe.members (kind: probe)"]
    wrong = command("config", "explain", "data.imagesize")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "nstudent: data.imagesize: there is no such key (did you mean 'data.image_size'?)\n"


@pytest.mark.slow
def test_the_json_schema_is_printed(command: Command) -> None:
    assert json.loads(command("config", "schema").stdout)["properties"].keys() >= {"seed", "data"}


@pytest.mark.slow
def test_the_version_is_that_of_the_package(command: Command) -> None:
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"nstudent {version('nstudent')}\n")


def _completed(*words: str) -> CompletedProcess[str]:
    """What a bash that completes the last word gets."""
    setting = {
        "_NSTUDENT_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["nstudent", *words]),
        "COMP_CWORD": str(len(words)),
    }
    code = (
        "import sys; from nstudent import cli; sys.argv = ['nstudent']\ntry: cli.main()\n"
        "finally: sys.stderr.write(' '.join(n for n in ('torch', 'timm', 'cv2', 'sklearn') if n in sys.modules))"
    )
    return subprocess.run([sys.executable, "-c", code], env=os.environ | setting, capture_output=True, text=True)


@pytest.mark.slow
def test_a_shell_completes_commands_and_keys_without_loading_anything_heavy() -> None:
    for words, expected in (
        (["conf"], ["config"]),
        (["run-all", "data.image_s"], ["data.image_size="]),
        (["config", "explain", "data.image_s"], ["data.image_size"]),
        (["run-all", "data.image_size=3"], []),
    ):
        done = _completed(*words)
        assert done.stdout.split() == expected
        assert done.stderr == ""


def test_a_key_is_completed_wherever_keys_are_taken() -> None:
    for name in ("run-all", "stage"):
        below = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
        words = next(each for each in below.params if each.name == "overrides")
        found = [each.value for each in words.shell_complete(below.make_context(name, ["data"]), "student.noise.")]
        assert found == [f"{key}=" for key in all_keys() if key.startswith("student.noise.")]


@pytest.mark.slow
def test_help_fits_80_columns_and_names_the_first_commands(command: Command) -> None:
    for words in ([], ["init"], ["data", "check"], ["config", "show"], ["config", "schema"], ["run-all"]):
        assert max(map(len, command(*words, "--help").stdout.splitlines())) <= 80
    said = command("--help").stdout
    assert all(
        f"nstudent {words}" in said for words in ("init photos heap", "run-all --config nstudent.yaml", "predict")
    )
