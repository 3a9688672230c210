"""What the benchmarks decide before they measure."""

import runpy
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.parametrize(
    ("processes", "gpus", "asked", "expected"),
    [
        *((2, 0, "auto", "cpu"), (2, 1, "auto", "cpu"), (2, 2, "auto", "cuda"), (4, 3, "auto", "cpu")),
        *((2, 1, "cuda", "cuda"), (2, 2, "cpu", "cpu")),
    ],
)
def test_processes_are_compared_on_gpus_only_if_each_has_one(
    processes: int, gpus: int, asked: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    device_for = runpy.run_path(str(BENCHMARKS / "scale.py"))["device_for"]
    assert device_for(processes, asked) == expected
