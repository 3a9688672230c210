"""Whatever becomes of the output, the run ends as it would have."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fork_server import ForkServer
from nstudent.cli.streams import LenientStream, lenient_streams, lost_output
from PIL import Image

Shell = Callable[[str], "subprocess.CompletedProcess[str]"]
SHORT = "rounds=0 'teacher.members=[{}]' 'probe.members=[]' teacher.epochs=14 data.image_size=16 evaluate.resamples=20"
RUN = f"{sys.executable} -m nstudent run-all {SHORT} jobs=1 threads=1 --run-dir run"

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, encoding="utf-8"
        )

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of two classes."""
    draws = np.random.default_rng(0)
    for name in ("apple", "pear"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(30):
            image = draws.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "said", "status"),
    [
        (">&- 2>&-", "", 0),
        pytest.param(">/dev/full 2>/dev/full", "", 2, marks=needs_full),
        ("2>&1 | head -1; exit ${PIPESTATUS[0]}", None, 0),
        ("2>/dev/null", None, 0),
    ],
)
def test_a_run_is_made_whatever_becomes_of_its_output(
    shell: Shell, tmp_path: Path, redirected: str, said: str | None, status: int
) -> None:
    done = shell(f"export PYTHONIOENCODING=ascii; {RUN} {redirected}")
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert said is None or done.stdout + done.stderr == said
    assert done.stdout.isascii()
    assert (tmp_path / "run" / "final.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["--help", "run-all --dry-run", "run-all seed=x", "status nowhere"])
def test_nothing_is_said_of_output_that_nobody_takes(shell: Shell, arguments: str) -> None:
    codes = [shell(f"{sys.executable} -m nstudent {arguments} {end}").returncode for end in ("", ">&- 2>&-")]
    assert codes[0] == codes[1]


LOST = (
    "nstudent: the output could not be written (No space left on device): with room for it, the same command gives it "
    "again\n"
)


@needs_full
@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "run-all --dry-run",
        "config show",
        "config explain",
        "data check data.source=folder data.root=photos data.image_size=16",
    ],
)
def test_an_answer_that_is_lost_is_an_error(
    shell: Shell, server: ForkServer, photos: Path, tmp_path: Path, arguments: str
) -> None:
    command = f"{sys.executable} -m nstudent {arguments}"
    assert shell(f"{command} | true; exit ${{PIPESTATUS[0]}}").returncode == 0, "whoever leaves has seen enough"
    done = server.command(arguments.split(), tmp_path, stdout="/dev/full")
    assert (done.returncode, done.stderr.splitlines(True)[-1]) == (2, LOST)


@needs_full
@pytest.mark.slow
def test_what_is_said_of_a_run_and_lost_is_an_error(
    shell: Shell, server: ForkServer, photos: Path, tmp_path: Path
) -> None:
    assert shell(RUN).returncode == 0
    assert server.command(["predict", "run", "none.png"], tmp_path).returncode == 2, "the image is not there"
    for arguments in (
        *("status run", "verify run", "report run", "predict run photos", "predict run none.png"),
        *("export run --out out", "init photos --no-download --out page.yaml"),
    ):
        done = server.command(arguments.split(), tmp_path, stdout="/dev/full")
        assert (done.returncode, done.stderr.splitlines(True)[-1]) == (2, LOST), arguments
    # What is up to date is not made again: the table of a run is there as soon as there is room for it.
    done = shell(f"{RUN} > /dev/full")
    assert (done.returncode, done.stderr.splitlines(True)[-1]) == (2, LOST)
    assert "accuracy" in shell(RUN).stdout


class _Full(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise OSError(28, "No space left on device")


def test_a_stream_that_failed_once_is_left_alone() -> None:
    full = _Full()
    stream = LenientStream(full)
    assert [stream.write("a"), stream.write("bc")] == [1, 2]
    assert full.tries == 1


@pytest.mark.parametrize(
    ("encoding", "written"), [("ascii", "50 +-1 \\u4e2d..."), ("latin-1", "50 ±1 \\u4e2d..."), ("utf-8", "50 ±1 中…")]
)
def test_characters_that_a_stream_has_not_are_written_in_others(encoding: str, written: str) -> None:
    behind = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    stream = LenientStream(behind)
    stream.write("50 ±1 中…")
    stream.flush()
    assert behind.buffer.getvalue().decode(encoding) == written  # type: ignore[attr-defined]


def test_streams_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    before = sys.stderr
    with lenient_streams():
        print("nowhere")
        assert lost_output() is None
    assert sys.stdout is None
    assert sys.stderr is before
