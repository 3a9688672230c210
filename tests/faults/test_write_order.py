"""What is on disk after every prefix of a write: the old state or the new one, and in what order it gets there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fault_injection import KILL, TEAR, recorded
from nstudent.storage.artifact import SCHEMA, Artifact
from nstudent.storage.commit import finish_commit
from nstudent.storage.files import sha256_of

_FIELDS = {"stage": "teacher", "role": "labeller", "round": 0, "asked": {}, "inputs": {}, "metrics": {}, "seconds": 0.0}

_DO = {
    "file": 'files.atomic_write(folder / "f", b"new" * 1000)',
    "step": f"""
step = folder / "01-teacher"
partial = commit.open_partial(step, "asked for")
files.atomic_write(partial / "weights", b"new" * 1000)
commit.commit(step, {_FIELDS!r})
""",
}
_HEAD = """
import os, shutil, sys
from pathlib import Path
from nstudent.storage import commit, files
"""
_STRIKE = """
sys.path.insert(0, sys.argv[1])
from fault_injection import Fault, Injector
runs, kind = Path(sys.argv[2]), sys.argv[3]
at, killed = 0, True
while killed:
    folder = runs / f"{at:03d}"
    shutil.copytree(runs / "before", folder)
    child = os.fork()
    if child == 0:
        Injector(folder, Fault(at, kind), runs / "log").install()
        exec(sys.argv[4])
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    killed = status < 0
    at += 1
sys.exit(status)
"""


def _struck_at_each(runs: Path, kind: str, what: str) -> list[Path]:
    """Copies of ``runs/before`` in which a write was struck at its first operation, its second, ..., and not at all."""
    command = [sys.executable, "-c", _HEAD + _STRIKE, str(Path(__file__).parent), str(runs), kind, _DO[what]]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sorted(path for path in runs.iterdir() if path.name.isdigit())


@pytest.mark.parametrize("kind", [KILL, TEAR])
def test_every_prefix_of_a_write_is_the_old_file_or_the_new_one(run_dir: Path, kind: str) -> None:
    old, new = b"old", b"new" * 1000
    (run_dir / "before").mkdir(parents=True)
    (run_dir / "before" / "f").write_bytes(old)
    folders = _struck_at_each(run_dir, kind, "file")
    assert [operation for operation, _ in recorded(run_dir / "log")] == ["open", "fsync", "rename", "fsync folder"]
    # The name is given third: until then the file is the old one, from then on the new one.
    assert [(folder / "f").read_bytes() for folder in folders] == [old, old, old, new, new]


@pytest.mark.parametrize("kind", [KILL, TEAR])
def test_every_prefix_of_a_commit_is_the_old_step_or_the_new_one(run_dir: Path, kind: str) -> None:
    before = _make_an_old_step(run_dir / "before" / "01-teacher")
    ids = []
    for folder in _struck_at_each(run_dir, kind, "step"):
        finish_commit(folder / "01-teacher")
        made = Artifact(folder / "01-teacher")
        made.path("weights")
        ids.append(made.manifest.id)
    after = ids[-1]
    assert before != after
    # One moment at which the new step exists; nothing before it, nothing back.
    moment = ids.index(after)
    assert 0 < moment < len(ids) - 1
    assert ids == [before] * moment + [after] * (len(ids) - moment)


def _make_an_old_step(step: Path) -> str:
    step.mkdir(parents=True)
    (step / "weights").write_bytes(b"old")
    entry = {"sha256": sha256_of(step / "weights"), "bytes": 3}
    manifest = _FIELDS | {"files": {"weights": entry}, "environment": {}, "schema": SCHEMA}
    (step / "manifest.json").write_text(json.dumps(manifest))
    return Artifact(step).manifest.id


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_system_is_asked_in_this_order(tmp_path: Path) -> None:
    """As the kernel sees it: data to disk, then its name, then the folder; the manifest after everything else."""
    trace = tmp_path / "trace"
    (tmp_path / "run").mkdir()
    script = f"{_HEAD}folder = Path({str(tmp_path / 'run')!r}){_DO['step']}"
    calls = "trace=fsync,rename,renameat,renameat2"
    strace = ["strace", "-f", "-y", "-e", calls, "-o", str(trace), sys.executable, "-c", script]
    done = subprocess.run(strace, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr:
        pytest.skip("this system does not let processes be traced")
    assert done.returncode == 0, done.stderr
    # Of an fsync the file it is of, of a rename the new name; a process number and descriptors stand before them.
    traced = re.sub(r"\.[0-9a-f]{8}\.writing", ".writing", trace.read_text())
    found = re.findall(rf'(fsync|rename)\w*\(.*"?{tmp_path}/run/?([^">]*)[">]', traced)
    partial = "01-teacher.partial"
    assert [(call, name) for call, name in found if "asked" not in name and name != ""] == [
        ("fsync", partial),
        ("fsync", f"{partial}/.weights.writing"),
        ("rename", f"{partial}/weights"),
        ("fsync", partial),
        ("fsync", f"{partial}/.manifest.json.writing"),
        ("rename", f"{partial}/manifest.json"),
        ("fsync", partial),
        ("rename", "01-teacher"),
    ]
    assert found[-1] == ("fsync", "")
