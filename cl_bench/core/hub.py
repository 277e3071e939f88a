"""Hugging Face's hub: whether it answers is asked once, for the clients of its libraries try for minutes."""

from __future__ import annotations

import functools
import os
import urllib.error
import urllib.request

REACH_SECONDS = 5.0


@functools.cache
def reach() -> None:
    """Set its libraries to what was fetched before, where it does not answer."""
    import huggingface_hub.constants

    request = urllib.request.Request(huggingface_hub.constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return  # an answer
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"  # for those that are imported after this
        huggingface_hub.constants.HF_HUB_OFFLINE = True
