"""What the tests of a report share."""

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of writes is tested elsewhere; here nobody waits for the disk."""
    monkeypatch.setattr("nstudent.storage.files.os.fsync", lambda descriptor: None)
