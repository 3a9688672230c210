"""A real Chromium that opens a page from disk and says what it did: its protocol goes through a pipe.

Chromium's own switches cannot make a window as narrow as a phone, nor tell a dark scheme from a light one.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "needs a Chromium, whose command is not installed here"
_SECONDS = 60.0
_SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    "--remote-debugging-pipe",
)


@dataclass(frozen=True)
class Seen:
    """What a browser did with a page."""

    requests: tuple[str, ...]
    """Addresses that were asked for, less those that lie in the page."""
    scripts: int
    """Number of scripts that were compiled."""
    said: tuple[str, ...]
    """Messages of the console and errors, refused loads among them."""
    text: str
    width: int
    """Width of what can be scrolled to, in CSS pixels."""
    back: str
    """Colour of the background, as CSS says it."""
    ink: str
    screenshot: bytes
    """PNG of the first screen."""


class Browser:
    """One Chromium, driven over file descriptors 3 and 4."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._rest = b""
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def look(self, page: Path, *, width: int = 1000, dark: bool = False) -> Seen:
        """Open a page in a tab of its own, so many CSS pixels wide."""
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        for method, parameters in (
            *((f"{domain}.enable", {}) for domain in ("Page", "Network", "Runtime", "Log", "Debugger")),
            ("Emulation.setDeviceMetricsOverride", size),
            ("Emulation.setEmulatedMedia", {"features": [scheme]}),
        ):
            self._ask(method, parameters, session)
        self._events.clear()
        address = page.resolve().as_uri()
        self._ask("Page.navigate", {"url": address}, session)
        self._wait_for("Page.loadEventFired")
        # What a page begins in its last moment is told by then.
        shot = self._ask("Page.captureScreenshot", {"format": "png"}, session)["data"]
        events = list(self._events)
        self._ask("Debugger.disable", {}, session)
        found = {
            name: self._ask("Runtime.evaluate", {"expression": code}, session)["result"]["value"]
            for name, code in (
                ("text", "document.body.innerText"),
                ("width", "document.documentElement.scrollWidth"),
                ("back", "getComputedStyle(document.body).backgroundColor"),
                ("ink", "getComputedStyle(document.body).color"),
            )
        }
        self._ask("Target.closeTarget", {"targetId": target})
        asked = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
        return Seen(
            requests=tuple(url for url in asked if url != address and not url.startswith("data:")),
            scripts=sum(each["method"] == "Debugger.scriptParsed" for each in events),
            said=tuple(_messages(events)),
            screenshot=base64.b64decode(shot),
            **found,
        )

    def _ask(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        os.write(self._commands, json.dumps(command | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _wait_for(self, event: str) -> None:
        while not any(each["method"] == event for each in self._events):
            self._events.append(self._read())

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            more = os.read(self._answers, 1 << 16)
            assert more, "Chromium has ended"
            self._rest += more
        message, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found


def _messages(events: Sequence[dict[str, Any]]) -> Iterator[str]:
    for each in events:
        values = each["params"]
        if each["method"] == "Runtime.consoleAPICalled":
            yield f"console.{values['type']}: {values['args']}"
        elif each["method"] == "Runtime.exceptionThrown":
            yield str(values["exceptionDetails"]["text"])
        elif each["method"] == "Log.entryAdded":
            yield f"{values['entry']['level']}: {values['entry']['text']}"


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A Chromium with an empty profile, which is ended with the context."""
    assert CHROMIUM is not None
    theirs, commands = os.pipe()
    answers, their_answers = os.pipe()

    def as_3_and_4() -> None:
        # Both are copied out of the way first: one of them may lie where the other one goes.
        first, second = os.dup(theirs), os.dup(their_answers)
        os.dup2(first, 3)
        os.dup2(second, 4)

    process = subprocess.Popen(
        [CHROMIUM, *_SWITCHES, f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(profile)},
        pass_fds=(3, 4, theirs, their_answers),
        preexec_fn=as_3_and_4,
    )
    os.close(theirs)
    os.close(their_answers)
    try:
        yield Browser(commands, answers)
    finally:
        os.close(commands)
        process.terminate()
        process.wait(_SECONDS)
        os.close(answers)
