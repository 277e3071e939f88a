"""One thread, and data sets in a folder of the session: a test reads and writes nothing of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """CL_BENCH_DATA for the whole session, also for programs that tests start."""
    before = os.environ.get("CL_BENCH_DATA")
    os.environ["CL_BENCH_DATA"] = root = str(tmp_path_factory.mktemp("data"))
    yield root
    del os.environ["CL_BENCH_DATA"]
    if before is not None:
        os.environ["CL_BENCH_DATA"] = before


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    """A run at 64-true changes torch's default; the next test starts from float32."""
    yield
    torch.set_default_dtype(torch.float32)
