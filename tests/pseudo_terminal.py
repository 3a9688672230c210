"""A command at a terminal of its own, as a person has one."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path


def at_a_terminal(
    words: Sequence[str],
    *,
    typed: str = "",
    columns: int = 120,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command that succeeds; returns what a person sees of it.

    Args:
        words: The command.
        typed: What the person types.
        columns: Width of the terminal.
        folder: Working folder of the command.
        environment: Its variables.
    """
    leader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    with subprocess.Popen(words, cwd=folder, env=environment, **streams) as process:
        os.close(terminal)
        os.write(leader, typed.encode())
        seen = b""
        try:
            while part := os.read(leader, 4096):
                seen += part
        except OSError:  # Linux says so when the other side is closed.
            pass
    os.close(leader)
    assert process.returncode == 0, seen.decode()
    return seen.decode()
