"""Several processes train as one does, but for batch normalisation: each sees its own images."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from nstudent import cli
from nstudent.data.dataset import Dataset
from nstudent.distributed import ranks
from nstudent.errors import ConfigError, TrainingError
from torchrun_processes import ended, said, torchrun
from typer.testing import CliRunner

SCRIPT = Path(__file__).with_name("shared_training.py")


@pytest.mark.slow
def test_losses_and_running_averages_of_two_processes_are_those_of_one(digits: Dataset, tmp_path: Path) -> None:
    data = digits.pixels._shards[0].parent
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = said(SCRIPT, data, tmp_path / "one", "alone")
    two = said(*torchrun(2), SCRIPT, data, tmp_path / "two", "several")
    assert one["losses"][-1] < one["losses"][0]
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=2e-4)
    np.testing.assert_allclose(two["averages"], one["averages"], rtol=1e-4)


@pytest.mark.slow
def test_a_filter_of_two_processes_that_is_resumed_ends_like_one_that_is_not(digits: Dataset, tmp_path: Path) -> None:
    """Its mean teacher has batch statistics: those of a process were its own until it was resumed from the leader's."""
    data = digits.pixels._shards[0].parent
    found = said(*torchrun(2), SCRIPT.with_name("shared_resumption.py"), data, tmp_path)
    assert found["numbers"] > 100_000
    assert found["different"] == 0


@pytest.mark.slow
def test_three_processes_add_up_their_gradients_in_the_same_order_at_their_first_step_and_later() -> None:
    """Three numbers have a sum for every order, and a resumed training's first step is a later one of an unbroken."""
    found = said(*torchrun(3), SCRIPT.with_name("shared_gradient.py"))
    assert found["numbers"] > 200_000
    assert found["different"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ended", "stopped"])
def test_a_process_does_not_end_before_its_threads(way: str) -> None:
    """One that came back to an interpreter that was shutting down aborted its process now and then."""
    done = ended(*torchrun(2), SCRIPT.with_name("shared_end.py"), way)
    assert done.returncode == 0, done.stderr
    assert "terminate called" not in done.stderr


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> tuple[dist.HashStore, list[Any]]:
    """The second of two processes, whose first is there already: their store, and what the second does then."""
    for name, value in {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    store, done = dist.HashStore(), []
    store.set("attempt-0/started-0", "")
    monkeypatch.setattr(ranks, "rendezvous", lambda *_, **__: iter([(store, 1, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: done.append(backend))
    monkeypatch.setattr(ranks, "_set_timeout", lambda kind, timeout: done.append((kind, timeout)))
    return store, done


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, done: list[Any]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(f"cuda:{device}"))


def test_a_process_that_starts_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    store, met = dist.HashStore(), []
    monkeypatch.setattr(ranks, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))
    monkeypatch.setattr(ranks, "_set_timeout", lambda *limit: met.append(limit))
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: met.append(store.check(["attempt-0/started-1"])))
    threading.Timer(0.5, store.set, ("attempt-0/started-1", "")).start()
    ranks._connect("cpu")
    # Met only once the other was there; from then on nobody is in a hurry.
    assert met == [True, ("cpu", ranks._TIMEOUT)]


@pytest.mark.parametrize("command", ["run-all", "stage"])
def test_a_command_connects_for_the_device_of_its_configuration(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    asked = []

    def connect(device: str) -> None:
        asked.append(device)
        raise ConfigError("far enough")

    torchrun = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (torchrun | {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "_connect", connect)
    words = [command, *(["teacher"] if command == "stage" else [])]
    for device in ("cpu", "mps"):
        assert str(CliRunner().invoke(cli.app, [*words, f"device={device}"]).exception) == "far enough"
    assert asked == ["cpu", "mps"]


def test_on_the_cpu_no_gpu_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, meeting: tuple[dist.HashStore, list[Any]]
) -> None:
    def touched(*_: object) -> None:
        raise AssertionError("CUDA was asked for something")

    for name in ("is_available", "device_count", "set_device", "current_device", "init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    ranks._connect("cpu")
    assert meeting[1] == ["gloo", ("cpu", ranks._TIMEOUT)]


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("local_rank", [0, 1])
def test_each_process_takes_the_gpu_of_its_local_rank(
    monkeypatch: pytest.MonkeyPatch, meeting: tuple[dist.HashStore, list[Any]], device: str, local_rank: int
) -> None:
    _, done = meeting
    gpus(monkeypatch, 2, done)
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    ranks._connect(device)
    limits = [("cpu", timedelta(days=7)), ("cuda", timedelta(minutes=30))]
    assert done == [f"cuda:{local_rank}", "cpu:gloo,cuda:nccl", *limits]


def test_without_gpus_auto_means_the_cpu(
    monkeypatch: pytest.MonkeyPatch, meeting: tuple[dist.HashStore, list[Any]]
) -> None:
    gpus(monkeypatch, 0, meeting[1])
    ranks._connect("auto")
    assert meeting[1] == ["gloo", ("cpu", ranks._TIMEOUT)]


@pytest.mark.parametrize(
    ("device", "processes", "count", "said"),
    [
        *((d, 4, 1, "4 processes and 1 GPU on .*: start 1 .--nproc-per-node 1., or set") for d in ("auto", "cuda")),
        ("auto", 8, 3, "8 processes and 3 GPUs on .*: start 3 .--nproc-per-node 3., or set"),
        ("cuda", 2, 0, "2 processes and no GPU on .*: set"),
    ],
)
@pytest.mark.parametrize("local_rank", ["0", "1"])
def test_more_processes_than_gpus_are_refused_in_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
    meeting: tuple[dist.HashStore, list[Any]],
    device: str,
    processes: int,
    count: int,
    said: str,
    local_rank: str,
) -> None:
    _, done = meeting
    gpus(monkeypatch, count, done)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    with pytest.raises(ConfigError, match=f"^{said} device=cpu$"), ranks.connected(device):
        pass
    assert done == []


def test_a_process_with_a_gpu_does_not_wait_for_those_of_a_machine_that_lacks_some(
    monkeypatch: pytest.MonkeyPatch, meeting: tuple[dist.HashStore, list[Any]]
) -> None:
    store, done = meeting
    gpus(monkeypatch, 2, done)
    store.set("attempt-0/started-0", "8 processes and 1 GPU on another-machine: start 1")
    with pytest.raises(ConfigError, match=r"^8 processes and 1 GPU on another-machine: start 1$"):
        ranks._connect("cuda")
    assert done == []


@pytest.mark.slow
def test_of_two_real_processes_with_too_few_gpus_both_say_so(tmp_path: Path) -> None:
    """The machine is made to have one GPU, of which no call but its count is answered."""
    script = tmp_path / "one_gpu.py"
    script.write_text(
        "import sys\n"
        "import torch\n"
        "from nstudent.errors import ConfigError\n"
        "from nstudent.distributed.ranks import connected\n"
        "torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 1\n"
        "try:\n"
        "    with connected('auto'):\n"
        "        raise AssertionError('they began')\n"
        "except ConfigError as error:\n"
        "    sys.stdout.write(f'{error}\\n')\n"
    )
    done = ended(*torchrun(2), script)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("2 processes and 1 GPU on ") for line in lines)


@pytest.mark.parametrize("debug", [dist.DebugLevel.OFF, dist.DebugLevel.DETAIL])
def test_each_transport_of_a_process_group_has_a_limit_of_its_own(debug: dist.DebugLevel) -> None:
    """Both are gloo here, the second under another name: NCCL cannot be made without a GPU."""

    def second(store: dist.Store, rank: int, size: int, timeout: timedelta) -> dist.ProcessGroup:
        return dist.ProcessGroupGloo(store, rank, size, timeout)

    if "SECOND" not in dist.Backend._plugins:
        dist.Backend.register_backend("second", second, devices=["cuda"])
    dist.set_debug_level(debug)
    dist.init_process_group(
        "cpu:gloo,cuda:second", store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(minutes=2)
    )
    try:
        ranks._set_timeout("cpu", timedelta(days=7))
        ranks._set_timeout("cuda", timedelta(minutes=30))
        group = dist.group.WORLD
        backends = [group._get_backend(torch.device(kind)) for kind in ("cpu", "cuda")]
        limits = [getattr(backend, "wrapped_pg", backend).options._timeout for backend in backends]
        assert limits == [timedelta(days=7), timedelta(minutes=30)]
        # The end of a run waits on the CPU, too, whatever the device.
        dist.barrier()
    finally:
        dist.destroy_process_group()
        dist.set_debug_level(dist.DebugLevel.OFF)


def test_a_process_that_does_not_reach_the_others_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("Gloo connectFullMesh failed with ... Connection refused, remote=[127.0.1.1]:39862")

    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "init_process_group", refused)
    with (
        pytest.raises(TrainingError, match=r"process 0 of 1 on \S+ does not reach .*39862\): .*set GLOO_SOCKET_IFNAME"),
        ranks.connected("cpu"),
    ):
        pass
