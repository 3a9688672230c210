"""Pretrained weights that are to be downloaded: said, shown, and given up where nobody answers."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nstudent.config.file import load_config
from nstudent.errors import ConfigError
from nstudent.models import downloads
from nstudent.models.downloads import download
from nstudent.progress import Silence, Task
from nstudent.runs.plan import plan
from nstudent.runs.rehearsal import rehearse

WANTED = {"tf_efficientnet_lite0": "teacher.members.0.pretrained"}
FOLDER = "models--timm--tf_efficientnet_lite0.in1k"


class _Heard:
    """What a person is told; ``looked`` is called whenever the download is looked at."""

    def __init__(self, looked: Callable[[], None] = lambda: None) -> None:
        self.said: list[str] = []
        self.megabytes: list[float] = []
        self._looked = looked

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def task(self, name: str, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        yield self

    def advance(self, amount: int, **shown: float) -> None:
        self.megabytes += shown.values()
        self._looked()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a clock by which a second passes whenever it is looked at."""
    clock = itertools.count()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(downloads, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(downloads.time, "monotonic", lambda: float(next(clock)))
    return tmp_path


def test_what_is_downloaded_is_said_before_it_is(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, fetched = _Heard(), []
    monkeypatch.setattr(downloads, "load_state_dict_from_hf", lambda hub_id: fetched.append((hub_id, list(heard.said))))
    download(WANTED, heard)
    (said,) = heard.said
    assert said.startswith("downloading the weights of tf_efficientnet_lite0 from huggingface.co, once")
    assert fetched == [("timm/tf_efficientnet_lite0.in1k", [said])]


def test_where_nobody_answers_it_is_given_up_with_the_remedies(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(downloads, "load_state_dict_from_hf", lambda _: ended.wait())
    with pytest.raises(ConfigError) as refused:
        download(WANTED, Silence())
    ended.set()
    said = str(refused.value)
    assert said.startswith("teacher.members.0.pretrained: the pretrained weights of 'tf_efficientnet_lite0' cannot be")
    assert "from huggingface.co (nothing has come for 60 s)" in said
    assert "path of a safetensors file" in said
    assert "--no-download" in said


def test_what_comes_slowly_is_waited_for_and_shown(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, looks = threading.Event(), itertools.count(1)
    half = cache / FOLDER / "blobs" / "x.incomplete"
    half.parent.mkdir(parents=True)
    half.write_bytes(bytes(500_000))

    def grow() -> None:
        number = next(looks)
        with half.open("ab") as file:
            file.write(bytes(100_000))
        if number == 200:
            ended.set()

    heard = _Heard(grow)
    monkeypatch.setattr(downloads, "load_state_dict_from_hf", lambda _: ended.wait())
    download(WANTED, heard)
    assert heard.megabytes[:3] == [0.0, 0.1, 0.2]
    assert len(heard.megabytes) >= 200


def test_why_it_failed_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(hub_id: str) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(downloads, "load_state_dict_from_hf", fail)
    with pytest.raises(ConfigError, match=r"cannot be fetched from huggingface\.co \(.*no route to host\): run the"):
        download(WANTED, Silence())


def test_what_is_kept_and_what_is_nowhere_to_be_had_is_not_asked_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = cache / FOLDER / "snapshots" / "abc" / "model.safetensors"
    kept.parent.mkdir(parents=True)
    kept.touch()
    heard, fetched = _Heard(), []
    monkeypatch.setattr(downloads, "load_state_dict_from_hf", fetched.append)
    download({**WANTED, "wrn_28_2": "student.model.pretrained"}, heard)
    assert (heard.said, fetched) == ([], [])


def test_a_run_downloads_what_its_steps_name_before_a_network_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def note(wanted: dict[str, str], progress: object) -> None:
        raise ConfigError(f"{wanted}")

    monkeypatch.setattr(downloads, "download", note)
    words = [
        "teacher.members=[{backbones: [tf_efficientnet_lite0], pretrained: true}, {backbones: [test_resnet]}]",
        "student.model={backbones: [resnet18], pretrained: true}",
        "filter.enabled=false",
    ]
    config = load_config(None, words)
    with pytest.raises(ConfigError) as heard:
        rehearse(config, [step for step in plan(config) if step.stage.name in ("teacher", "student")], Silence())
    wanted = {
        "tf_efficientnet_lite0": "teacher.members.0.pretrained",
        "resnet18": "student.model.pretrained",
    }
    assert str(heard.value) == f"{wanted}"


_DOWNLOAD = f"""
from nstudent.errors import ConfigError
from nstudent.models import downloads
from nstudent.screen.bars import Screen
downloads._GIVE_UP_SECONDS = 2.0
try:
    downloads.download({WANTED}, Screen())
except ConfigError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_server_that_never_answers_does_not_hold_a_run(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        proxies = {name: "" for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")}
        own = {"HF_ENDPOINT": f"http://{host}", "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", _DOWNLOAD], env={**os.environ, **proxies, **own}, capture_output=True, text=True
        )
        server.settimeout(0)
        server.accept()[0].close()  # It was asked.
    assert done.returncode == 0, done.stderr
    assert f"cannot be fetched from {host} (nothing has come for 2 s)" in done.stdout
    assert f"downloading the weights of tf_efficientnet_lite0 from {host}" in done.stderr
