"""The README's promises, kept by running them."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import typer
from nstudent import Classifier
from nstudent.cli import app
from nstudent.config.file import load_config
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RUN = "pip install -e . && nstudent run-all"
TEST = 'pip install -e ".[test]" && pytest -n 2'
Command = Callable[..., CompletedProcess[str]]


def _code_lines(*pages: Path) -> list[str]:
    """Lines of the code blocks of some pages, of the README by default, fenced or indented."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages or [README])
    blocks = re.findall(r"^```\w*\n(.*?)^```|^((?:    .*\n)+)", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for fenced, indented in blocks for line in (fenced or indented).splitlines()]


def _commands() -> Iterator[list[str]]:
    """Words of every ``nstudent ...`` in a code block, also at the end of a longer line and before a redirection."""
    for line in _code_lines(README, ROOT / "docs" / "RUNNING.md", ROOT / "docs" / "USE.md"):
        for part in line.partition("#")[0].split("&&"):
            if part.split()[:1] == ["nstudent"]:
                yield shlex.split(part.partition(">")[0])[1:]


@pytest.mark.parametrize("command", [RUN, TEST])
def test_the_two_commands_stand_in_one_line_each(command: str) -> None:
    # A virtual environment may be made before it; nothing may be needed after it.
    assert [line for line in _code_lines() if line.endswith(command)]


def test_continuous_integration_runs_the_test_command() -> None:
    path = ROOT / ".ci" / "run"
    assert path.stat().st_mode & 0o111
    steps = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    # The wheel stands in for the editable install, so that what is tested is what is shipped.
    assert any(re.match(r"pip install .*\[test\]", line) for line in steps)
    assert any(re.match(r"pytest -n 2\b", line) for line in steps)
    assert all(any(re.search(rf"\b{tool}\b", line) for line in steps) for tool in ("ruff check", "ruff format", "mypy"))


def test_every_command_of_the_readme_is_one() -> None:
    command = typer.main.get_command(app)
    found = list(_commands())
    assert {words[0] for words in found} == set(command.commands)  # type: ignore[attr-defined]
    for words in found:
        context, below, rest = command.make_context("nstudent", list(words)), command, list(words)
        while hasattr(below, "commands"):
            below, rest = below.commands[rest[0]], rest[1:]
        parsed = below.make_context(words[0], rest, parent=context).params
        # A file that init writes is not there yet.
        if "overrides" in parsed and (page := parsed["config"]) not in (Path("nstudent.yaml"), Path("mine.yaml")):
            load_config(None if page is None else ROOT / page, parsed["overrides"] or [])


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert links
    assert missing == []


_WATCHED = """
import sys
from nstudent import cli
sys.argv = ["nstudent", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
print("heavy:", [name for name in ("torch", "timm", "albumentations", "sklearn") if name in sys.modules])
"""
# The embedded run, made short: the same stages on the same images, of which fewer are unlabelled.
_SHORT = [
    *("rounds=1", "probe.members=[]", "data.unlabelled=300", "teacher.epochs=20", "teacher.members=[{}]"),
    *("filter.enabled=true", "filter.epochs=1", "filter.iterations=1", "student.epochs=3", "evaluate.resamples=100"),
]
_STEPS = [
    *("00-data", "01-teacher", "02-baseline", "03-choose", "04-pseudolabel", "05-filter", "06-student"),
    *("07-choose", "08-evaluate"),
]


@pytest.mark.slow
def test_the_lines_for_photos_run_as_they_stand(nstudent: Command, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(60):
        kind = ("heap", "photos/fruit/apple", "photos/fruit/pear", "photos/tin")[number % 4]
        (tmp_path / kind).mkdir(parents=True, exist_ok=True)
        pixels = np.clip(random.normal(60 * (number % 4) + 30, 20, (72, 72, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / kind / f"{number}.png")
    Image.fromarray(pixels).save(tmp_path / "new.jpg")
    lines = [words for words in _commands() if {"photos", "nstudent.yaml", "runs/photos"} & set(words)]
    (tmp_path / "new").mkdir()
    Image.fromarray(pixels).save(tmp_path / "new" / "a.png")
    wanted = ["init", "run-all", "report", "predict", "predict", "evaluate", "export", "verify"]
    these = lines[: len(wanted)]
    assert [words[0] for words in these] == wanted
    (tmp_path / "sorted-later").symlink_to("photos")
    for words in these:
        # Made short: the same steps, an epoch each, at a quarter of the pixels.
        short = ["teacher.epochs=1", "student.epochs=1", "data.image_size=16", "jobs=1", "threads=1"]
        done = nstudent(*words, *(short if words[0] == "run-all" else []))
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "photos" / "report.html").exists()


@pytest.mark.slow
def test_the_run_command(nstudent: Command, python: Command, tmp_path: Path) -> None:
    done = nstudent("run-all", *_SHORT)
    assert done.returncode == 0, done.stderr
    made = [line.partition(":")[0] for line in done.stderr.splitlines() if line.endswith("not made yet")]
    assert made == [f"[{number}/9] {step}" for number, step in enumerate(_STEPS, start=1)]
    assert (tmp_path / "runs" / "digits" / "report.html").stat().st_size < 5_000_000
    assert all(name in done.stdout for name in ("01-teacher", "02-baseline", "06-student", "level accuracy", "±"))
    _check_scores(tmp_path / "runs" / "digits" / "08-evaluate")

    again = python("-c", _WATCHED, "run-all", *_SHORT)
    assert [line for line in again.stderr.splitlines() if not line.endswith(": up to date")] == []
    assert again.stdout.splitlines()[-1] == "heavy: []"
    assert again.stdout.splitlines()[:-1] == done.stdout.splitlines()

    status = nstudent("status", "runs/digits")
    assert [line.split()[:2] for line in status.stdout.splitlines()[1:]] == [[name, "done"] for name in _STEPS]
    _check_predictions(nstudent, tmp_path)


def _check_scores(step: Path) -> None:
    scores = json.loads((step / "scores.json").read_text())
    assert scores["classifiers"].keys() == {"01-teacher", "02-baseline", "06-student"}
    assert scores["final"]["parts"].keys() <= scores["classifiers"].keys()
    for classifier in scores["classifiers"].values():
        for part in ("validation", "test"):
            found = classifier[part]
            assert {"accuracy/coarse", "accuracy/mid", "accuracy/fine", "level accuracy", "whole path"} <= found.keys()
            assert all(0 <= each["low"] <= each["value"] <= each["high"] <= 1 for each in found.values())
    # Ten shapes, of which three coarse ones: a teacher of 100 labels is far above guessing.
    assert scores["classifiers"]["01-teacher"]["test"]["accuracy/coarse"]["value"] > 0.6
    assert (step / "scores.png").read_bytes().startswith(b"\x89PNG")


def _check_predictions(nstudent: Command, folder: Path) -> None:
    stroke = np.zeros((8, 8), dtype=np.uint8)
    stroke[1:7, 3:5] = 255
    Image.fromarray(stroke).save(folder / "one.png")
    (folder / "broken.png").write_bytes(b"no image")
    done = nstudent("predict", "runs/digits", "one.png")
    assert done.returncode == 0, done.stderr
    prediction = json.loads(done.stdout)
    assert prediction["image"] == "one.png"
    assert next(iter(prediction["labels"])) == "coarse"
    assert all(0 <= label["probability"] <= 1 for label in prediction["labels"].values())

    images = [folder / name for name in ("broken.png", "one.png", "nowhere.png")]
    found = Classifier.load(folder / "runs" / "digits", "cpu").predict(images)
    assert [each.image for each in found] == list(map(str, images))
    assert [each.error is None for each in found] == [False, True, False]
    # What stands beside an image does not change its label.
    assert {level: label.name for level, label in found[1].labels.items()} == {
        level: label["class"] for level, label in prediction["labels"].items()
    }


def test_every_link_of_a_page_leads_to_a_file() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())]
    assert links
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []
