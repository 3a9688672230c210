"""nstudent predict --out in real processes that are killed or told to stop: the file is the same in the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from finished_runs import add_classifier, photo
from nstudent.config.members import ProbeConfig

pytestmark = pytest.mark.slow

# Parts of few images, so that there is something between them.
_PROGRAM = """
import sys
from nstudent import cli
from nstudent.answers import labelled_file
labelled_file._MOST_IMAGES = 8
sys.argv = ["nstudent", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)])
def test_a_command_that_was_ended_goes_on_to_the_same_file(tmp_path: Path, number: int, code: int) -> None:
    run_dir = add_classifier(tmp_path / "run", [ProbeConfig()])
    (tmp_path / "new").mkdir()
    for image in range(24):
        photo(tmp_path / "new" / f"{image:02d}.png", seed=image)
    names = [str(path) for path in sorted((tmp_path / "new").iterdir())] * 40
    command = [sys.executable, "-c", _PROGRAM, "predict", str(run_dir), "-", "--device=cpu", "--out"]
    listed = "".join(f"{name}\n" for name in names)

    def start(out: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([*command, out], cwd=tmp_path, env=environment, text=True, **pipes)
        assert process.stdin is not None
        process.stdin.write(listed)
        process.stdin.close()
        process.stdin = None
        return process

    broken = start("broken.csv")
    while not list(tmp_path.glob("broken.csv.parts/part-*")):
        assert broken.poll() is None, broken.communicate()
        time.sleep(0.005)
    broken.send_signal(number)
    _, said = broken.communicate()
    assert broken.returncode == code, said
    assert not (tmp_path / "broken.csv").exists()
    kept = len(list(tmp_path.glob("broken.csv.parts/part-*")))
    assert 0 < kept < len(names) // 8
    for out in ("broken.csv", "whole.csv"):
        process = start(out)
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert (tmp_path / "broken.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len((tmp_path / "whole.csv").read_text().splitlines()) == len(names) + 1
    assert not list(tmp_path.glob("*.parts"))
