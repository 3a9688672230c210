"""A pack and a run of it, killed at operations all along: the same command ends at the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_EVERY = 5
"""By hand: `python tests/faults/pack_kills.py FOLDER 1` strikes at every operation."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the campaign says."""
    script = Path(__file__).with_name("pack_kills.py")
    command = [sys.executable, str(script), str(tmp_path_factory.mktemp("kills")), str(_EVERY)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("part", ["packing", "running"])
def test_killed_at_any_operation_the_same_command_ends_at_the_same_bytes(outcome: dict, part: str) -> None:
    assert outcome[part]["wrong"] == []
    assert outcome[part]["strikes"] > 5
    assert {"fsync", "rename", "mkdir", "open"} <= set(outcome[part]["kinds"])


def test_shards_are_linked_in_the_run_and_the_pack_stays_as_it_was(outcome: dict) -> None:
    assert "link" in outcome["running"]["kinds"]
    assert outcome["pack_is_untouched"]
