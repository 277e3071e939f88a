"""Whether the hub answers is asked once, and what it then means for its libraries."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from email.message import Message

import huggingface_hub.constants
import pytest

from cl_bench.core.hub import reach


@pytest.mark.parametrize(
    ("error", "offline"),
    [(urllib.error.URLError("no network"), True), (TimeoutError(), True), (urllib.error.HTTPError("", 403, "", Message(), None), False)],
)
def test_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch, error: Exception, offline: bool) -> None:
    asked = []

    def ask(*given: object, **more: object) -> None:
        asked.append(given)
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", ask)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    reach.cache_clear()
    reach()
    reach()
    reach.cache_clear()
    assert len(asked) == 1 and offline == huggingface_hub.constants.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == str(int(offline))
