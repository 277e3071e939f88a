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


@pytest.fixture
def make_learner():
    """learner(network, ...) at 64-true on the CPU, its view raw / 255, plain SGD."""
    from lightning_fabric import Fabric

    from cl_bench.core.learner import Learner
    from cl_bench.core.schedule import Constant
    from cl_bench.objectives.supervised import Supervised

    def make(network: torch.nn.Module, masks: torch.Tensor | None = None, loss_over: str = "all", rate: float = 0.1) -> Learner:
        learner = Learner(
            network=network.double(),
            objective=Supervised(loss_over=loss_over),
            view=lambda raw, rng: raw.double() / 255,
            make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate),
            schedule=Constant(),
            clip=None,
            batch_norm="train",
            fabric=Fabric(accelerator="cpu", devices=1, precision="64-true"),
            seed=5,
        )
        learner.masks = masks
        return learner

    return make
