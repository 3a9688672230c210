"""Several processes train as one does, but for batch normalisation: each sees its own images."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from nstudent import ranks
from nstudent.errors import TrainingError

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


def torchrun(processes, *command):
    return said("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *command)


def test_losses_and_running_averages_of_two_processes_are_those_of_one(digits, tmp_path):
    data = digits.pixels._shards[0].parent
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = said(SCRIPT, data, tmp_path / "one", "alone")
    two = torchrun(2, SCRIPT, data, tmp_path / "two", "several")
    assert one["losses"][-1] < one["losses"][0]
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=2e-4)
    np.testing.assert_allclose(two["averages"], one["averages"], rtol=1e-4)


def test_three_processes_add_up_their_gradients_in_the_same_order_at_their_first_step_and_later():
    """Three numbers have a sum for every order, and a resumed training's first step is a later one of an unbroken."""
    found = torchrun(3, SCRIPT.with_name("shared_gradient.py"))
    assert found["numbers"] > 200_000
    assert found["different"] == 0


def test_a_process_that_starts_late_is_waited_for(monkeypatch):
    store, met = dist.HashStore(), []
    monkeypatch.setattr(ranks, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))
    monkeypatch.setattr(ranks, "_set_timeout", met.append)
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: met.append(store.check(["attempt-0/started-1"])))
    threading.Timer(0.5, store.set, ("attempt-0/started-1", "")).start()
    ranks._connect()
    # Met only once the other was there; from then on nobody is in a hurry.
    assert met == [True, ranks._TIMEOUT]


def test_a_process_that_does_not_reach_the_others_says_what_to_set(monkeypatch):
    def refused(*_, **__):
        raise RuntimeError("Gloo connectFullMesh failed with ... Connection refused, remote=[127.0.1.1]:39862")

    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "init_process_group", refused)
    with (
        pytest.raises(TrainingError, match=r"process 0 of 1 on \S+ does not reach .*39862\): .*set GLOO_SOCKET_IFNAME"),
        ranks.connected(),
    ):
        pass
