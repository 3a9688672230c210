"""Runs the code of a checkout of this project, this one or another, whatever is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def name_of(checkout: Path) -> str:
    """Its commit, or the name of its folder where git knows none."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return said or checkout.name


def run_all(checkout: Path, words: list[str], run_dir: Path) -> dict[str, dict[str, str]]:
    """Make a run by the code of a checkout; returns the sha256 of every file of every step, by step and name.

    Raises:
        SystemExit: the run has failed; the message is the end of what it said.
    """
    code = package(checkout, run_dir.with_name(f"{run_dir.name}-code"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "nstudent", "run-all", *words, "--run-dir", str(run_dir)]
    done = subprocess.run(command, env=environment, cwd=run_dir.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name_of(checkout)}: {done.stderr[-2000:]}")
    manifests = {path.parent.name: json.loads(path.read_text()) for path in sorted(run_dir.glob("*/manifest.json"))}
    return {
        step: {file: entry["sha256"] for file, entry in manifest["files"].items()}
        for step, manifest in manifests.items()
    }


def package(checkout: Path, folder: Path) -> Path:
    """A folder for PYTHONPATH in which ``nstudent`` is the code of a checkout: it stands before an installed one.

    It is a copy: a run that starts processes late would otherwise mix in what was edited in the meantime.
    """
    inner = folder / "nstudent"
    if not inner.exists():
        waiting = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(waiting, ignore_errors=True)
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(checkout / "pipeline", waiting / "nstudent", ignore=unwanted)
        shutil.copytree(checkout / "stages", waiting / "nstudent" / "stages", ignore=unwanted, dirs_exist_ok=True)
        waiting.rename(folder)
    return folder
