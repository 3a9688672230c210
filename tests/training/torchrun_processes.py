"""Scripts in processes of their own, alone or as several that torchrun starts."""

import json
import os
import subprocess
import sys
from pathlib import Path


def ended(*command: Path | str) -> subprocess.CompletedProcess:
    """The process that ran a Python command, after its end."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def said(*command: Path | str) -> list[list[float]]:
    """What a Python command has written as JSON."""
    done = ended(*command)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def torchrun(processes: int) -> tuple[str, ...]:
    """The first words of a command that starts a script in several processes."""
    return "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"
