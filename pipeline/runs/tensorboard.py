"""The curves of a run's trainings as TensorBoard shows them, a folder for each training."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nstudent.errors import ConfigError
from nstudent.listener import NoListener
from nstudent.storage.files import explained, remove_folder

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

FOLDER = "tensorboard"
"""Folder of the events, in the run folder."""


class TensorBoard(NoListener):
    """Listener that writes the curves of each training as events, at the training steps at which an epoch ended."""

    def __init__(self, run_dir: Path) -> None:
        """Write below ``run_dir``.

        Raises:
            ConfigError: TensorBoard is not installed.
        """
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError("track=tensorboard needs TensorBoard: pip install 'nstudent[track]', or set track=none")
        self._folder = run_dir / FOLDER
        self._writer: SummaryWriter | None = None

    def begins(self, training: str, behind: Sequence[Mapping[str, float]]) -> None:
        """Replace the events of the training by those of the epochs that lie behind it."""
        from torch.utils.tensorboard.writer import SummaryWriter

        if self._writer is not None:
            self._writer.close()
        folder = self._folder / training.replace(" ", "-")
        # Events can only be added to a file: one of an interrupted attempt would show some epochs twice.
        remove_folder(folder)
        with explained(folder, "write"):
            self._writer = SummaryWriter(str(folder))
        for entry in behind:
            self._add(entry)
        self._writer.flush()

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        """Add the events of an epoch."""
        assert self._writer is not None, "a training begins before its first epoch ends"
        self._add(entry)
        with explained(self._folder, "write"):
            self._writer.flush()

    def _add(self, entry: Mapping[str, float]) -> None:
        assert self._writer is not None
        at = int(entry.get("step", entry["epoch"]))
        for name, value in entry.items():
            if name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, at)
