"""Pretrained weights that timm downloads: said beforehand, shown meanwhile, and given up where nobody answers.

The library behind timm asks again for minutes without a word. Here it is asked in a thread that nobody waits for longer
than it makes sense; what it has downloaded stays in its cache, from which networks are built afterwards.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import timm
from nstudent.errors import ConfigError, summary
from nstudent.progress import Progress, Task
from timm.models import load_state_dict_from_hf

_GIVE_UP_SECONDS = 60.0
"""Time without a new byte after which a file is given up."""
_LOOK_SECONDS = 0.2


def download(wanted: Mapping[str, str], progress: Progress) -> None:
    """Let timm download the weights of backbones, unless they are in its cache.

    Args:
        wanted: Key of the configuration that asks for the weights, by the name of the backbone in timm.
        progress: Is told beforehand what is downloaded, and meanwhile how much has come.

    Raises:
        ConfigError: Weights cannot be fetched, or nothing of them comes for a minute.
        StoppedError: ``progress`` asked to stop.
    """
    ids = {name: found for name in wanted if (found := _hub_id(name)) and not _is_kept(found)}
    if not ids:
        return
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").partition("://")[2]
    progress.say(f"downloading the weights of {', '.join(ids)} from {host}, once: they are kept in {_cache()}")
    with progress.task("download", len(ids), "files") as task:
        for name, hub_id in ids.items():
            why = _fetch(hub_id, task)
            if why is not None:
                raise ConfigError(
                    f"{wanted[name]}: the pretrained weights of '{name}' cannot be fetched from {host} ({why}): run "
                    "the same command again with a network, or set pretrained to the path of a safetensors file, or to "
                    "false (nstudent init --no-download writes such a page)"
                )
            task.advance(1)


def _fetch(hub_id: str, task: Task) -> str | None:
    """Wait for the weights as long as anything comes; returns why they did not, or ``None``."""
    failed: list[Exception] = []

    def fetch() -> None:
        try:
            load_state_dict_from_hf(hub_id)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    came, last = _bytes_of(hub_id), time.monotonic()
    began = came
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)
        if (now := _bytes_of(hub_id)) != came:
            came, last = now, time.monotonic()
        if thread.is_alive() and time.monotonic() - last >= _GIVE_UP_SECONDS:
            return f"nothing has come for {_GIVE_UP_SECONDS:.0f} s"
        task.advance(0, MB=round((came - began) / 1e6, 1))
    return summary(failed[0]) if failed else None


def _hub_id(name: str) -> str | None:
    """Where the weights of a backbone are; ``None`` if it has none there, which timm says when it builds it."""
    known = timm.get_pretrained_cfg(name)
    return known.hf_hub_id if known is not None and isinstance(known.hf_hub_id, str) else None


def _is_kept(hub_id: str) -> bool:
    return any(_folder(hub_id).glob("snapshots/*/*.safetensors"))


def _bytes_of(hub_id: str) -> int:
    """Bytes that the cache holds of it, half files included."""
    found = 0
    for path in _folder(hub_id).glob("blobs/*"):
        try:
            found += path.stat().st_size
        except OSError:  # A half file has just become a whole one.
            continue
    return found


def _folder(hub_id: str) -> Path:
    return _cache() / f"models--{hub_id.partition('@')[0].replace('/', '--')}"


def _cache() -> Path:
    """The folder in which the library behind timm keeps what it has downloaded, by the variables that it goes by."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("HF_HOME", f"{home}/huggingface")).expanduser() / "hub"
