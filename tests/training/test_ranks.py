"""Two processes train as one does, but for batch normalisation: each sees its own images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).with_name("shared_training.py")


def said(*command):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_losses_and_running_averages_of_two_processes_are_those_of_one(digits, tmp_path):
    data = digits.pixels._shards[0].parent
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = said(SCRIPT, data, tmp_path / "one", "alone")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    two = said(*torchrun, SCRIPT, data, tmp_path / "two", "several")
    assert one["losses"][-1] < one["losses"][0]
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=2e-4)
    np.testing.assert_allclose(two["averages"], one["averages"], rtol=1e-4)
