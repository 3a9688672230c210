"""The examples of the pages, run as they stand beside a finished run.

Commands for photos, and those of docs/USE.md, have tests of their own (``test_readme``, ``test_use_of_a_run``); that
every other command can be parsed is held there as well.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import nstudent
import numpy as np
import pytest
from nstudent import cli
from nstudent.config.file import load_config
from nstudent.config.schema import Config
from nstudent.labels.store import DESCRIPTION
from nstudent.runs.plan import plan
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ("docs/PREDICTIONS.md", "docs/PSEUDO_LABELS.md", "docs/REPORT.md", "docs/RUNNING.md")
_DECODES = "image = ImageOps.exif_transpose"


def blocks(language: str, *pages: str) -> Iterator[tuple[str, str]]:
    """Page and text of the code blocks of a language."""
    every = [str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))]
    for page in pages or every:
        for block in re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
            yield page, block


@pytest.fixture
def beside(finished: Path, tmp_path: Path, tiny_words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the finished run as ``runs/digits``, whose settings every configuration gets."""
    shutil.copytree(finished, tmp_path / "runs" / "digits")
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)

    def load(path: str | Path | None = None, overrides: tuple[str, ...] = ()) -> Config:
        return load_config(path, [*overrides, *tiny_words])

    monkeypatch.setattr(nstudent, "load_config", load, raising=False)
    return tmp_path


def as_here(text: str, config: Config) -> str:
    """An example of a run with default settings, with the numbers that the steps have in a run with others."""
    usual, here = (
        {step.stage.name: step.name for step in reversed(plan(each))} for each in (load_config(None, []), config)
    )
    named = set(re.findall(r"\d\d-[a-z]+", text))
    assert named <= set(usual.values()) | {usual["evaluate"]}, "a step of a run with default settings"
    for name in named:
        text = text.replace(name, here[name[3:]])
    return text


def test_every_python_example_is_one_that_is_run() -> None:
    pages = {page for page, text in blocks("python") if not text.startswith(_DECODES)}
    assert pages <= set(PAGES)


@pytest.mark.usefixtures("beside")
def test_the_python_examples_run(tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    ran = 0
    for page, text in blocks("python", *PAGES):
        if "runs/birds" in text:
            continue
        exec(compile(as_here(text, tiny()), page, "exec"), names)
        ran += 1
    assert ran >= 6
    said = capsys.readouterr().out
    assert "of the test images have the whole path" in said
    assert "epochs, best score 0." in said
    assert "LevelPrediction(" in said


def test_the_example_of_a_level_with_many_classes_spreads_the_rest(
    beside: Path, tiny: Callable[..., Config], tiny_words: tuple[str, ...]
) -> None:
    (text,) = [text for _, text in blocks("python", "docs/PSEUDO_LABELS.md") if "runs/birds" in text]
    folder = beside / "runs" / "birds"
    shutil.copytree(beside / "runs" / "digits", folder)
    nstudent.run_stage(load_config(None, [*tiny_words, "pseudolabel.top_k=3"]), "pseudolabel", folder)
    names: dict[str, Any] = {}
    exec(as_here(text, tiny()), names)
    assert len(names["known"]) == 3
    # Without an output for the paths that end above, the classes of a level have less than everything.
    assert names["known"].sum() < names["distribution"].sum() < 1.01
    assert (folder / as_here("05-pseudolabel", tiny()) / DESCRIPTION).exists()


def _run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", words)
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


def test_the_commands_about_a_run_of_digits_run(
    beside: Path, tiny_words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text for _, text in blocks("sh", "docs/REPORT.md", "docs/RUNNING.md")]
    lines = [line.partition("#")[0].strip() for text in texts for line in text.splitlines()]
    # The finished run has no probe.
    ours = [line for line in lines if line and not re.search(r"torchrun|configs/|stage probe", line)]
    assert len(ours) >= 11
    for line in ours:
        words = shlex.split(line)
        if words[0] == "cp":
            shutil.copytree(words[2], words[3])
        else:
            settings = [] if words[1] == "report" else list(tiny_words)
            # What a line itself says stays as it stands there.
            given = {word.partition("=")[0] for word in words}
            more = [word for word in settings if word.partition("=")[0] not in given]
            code, said = _run([*words, *more], monkeypatch)
            assert code == 0, (line, said)
    assert (beside / "labels.csv").read_text().startswith("round,image,")
    assert (beside / "runs" / "digits-strict" / "report.html").exists()


def test_the_tree_of_the_page_on_data_is_one(tmp_path: Path) -> None:
    (text,) = [text for _, text in blocks("yaml", "docs/DATA.md")]
    page = tmp_path / "page.yaml"
    page.write_text(text)
    assert load_config(page, []).data.taxonomy == {
        "clothes": {"tops": ["T-shirt", "pullover"], "bottoms": ["trouser"]},
        "goods": {"bags": None},
    }


def test_the_names_of_the_page_on_performance_are_there() -> None:
    text = (ROOT / "docs" / "PERFORMANCE.md").read_text()
    named = set(re.findall(r"\bnstudent\.((?:[a-z_]+\.)+[A-Za-z_]+)\b(?=[(.)])", text))
    assert {"runs.run.run_part", "distributed.world.IndependentJob"} <= named
    for name in ("runs.run.run_part", "distributed.world.IndependentJob"):
        module, _, attribute = name.rpartition(".")
        __import__(f"nstudent.{module}")
        assert hasattr(sys.modules[f"nstudent.{module}"], attribute)
