"""A GPU is at hand for minutes: what measures it there is rehearsed here, on the CPU and at sizes that mean nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu"


def rehearsed(script: str, *arguments: str, folder: Path) -> str:
    """What a script prints; it has to end well."""
    command = [sys.executable, str(SCRIPTS / script), "--device", "cpu", "--toy", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_line_of_the_speed_report_is_taken(tmp_path: Path) -> None:
    said = rehearsed("speed.py", "--seconds", "400", "--out", str(tmp_path / "report.md"), folder=tmp_path)

    assert (tmp_path / "report.md").read_text() == said
    for wrong in ("FAILED", "took longer", "its process ended", "no time was left"):
        assert wrong not in said, said
    steps = [line for line in said.splitlines() if line.startswith("| step, ")]
    # Three sizes, one of them once more with its variants, and two with timed kernels.
    assert len(steps) == 6
    assert len([line for line in said.splitlines() if line.startswith("| labelling, ")]) == 2
    assert all(float(line.split("**")[1]) > 0 for line in steps[:4])


@pytest.mark.slow
def test_the_accuracy_report_scores_every_classifier(tmp_path: Path) -> None:
    words = ("teacher.epochs=40", "student.epochs=4")
    said = rehearsed("accuracy.py", "--seconds", "400", "--out", str(tmp_path), *words, folder=tmp_path)

    rows = [line.split("|")[1].strip() for line in said.splitlines() if line.startswith("| 0")]
    assert rows == ["01-probe", "02-teacher", "03-baseline", "07-student"]
    kept = json.loads((tmp_path / "accuracy.json").read_text())
    assert {"02-teacher/manifest.json", "09-evaluate/scores.json"} <= kept.keys()
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000
