"""Scripts in processes of their own, alone or as several that torchrun starts."""

import json
import os
import subprocess
import sys


def ended(*command):
    """The process that ran a Python command, after its end."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def said(*command):
    """What a Python command has written as JSON."""
    done = ended(*command)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def torchrun(processes):
    """The first words of a command that starts a script in several processes."""
    return "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"
