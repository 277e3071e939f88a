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
            backbone_rate=1.0,
            schedule=Constant(),
            clip=None,
            batch_norm="train",
            fabric=Fabric(accelerator="cpu", devices=1, precision="64-true"),
            seed=5,
        )
        learner.masks = masks
        return learner

    return make


@pytest.fixture
def make_stream():
    """make_stream(tasks, count): up to three tasks of 3 x 3 pictures in four classes."""
    from cl_bench.core.types import Examples, Experience, Stream, Test

    def make(tasks: int = 3, count: int = 12) -> Stream:
        rng = torch.Generator().manual_seed(2)
        experiences, tests = [], {}
        for t in range(tasks):
            raw = torch.randint(0, 256, (count, 1, 3, 3), generator=rng).to(torch.uint8)
            classes = ((0, 1), (2, 3), (0, 3))[t]
            data = Examples(raw, torch.tensor(classes)[torch.randint(0, 2, (count,), generator=rng)])
            experiences.append(Experience(t, f"task{t}", data, classes))
            tests[f"task{t}"] = Test(data, classes, t)
        return Stream(tuple(experiences), tests, 4)

    return make


@pytest.fixture
def make_network():
    """make_network(): the same small network each time, for make_stream's pictures."""
    from cl_bench.core.learner import Network
    from cl_bench.models.mlp import mlp

    def make(batch_norm: bool = False) -> Network:
        torch.manual_seed(0)
        backbone, dim = mlp(input_shape=(1, 3, 3), hidden=[5], batch_norm=batch_norm, pretrained=False)
        return Network(backbone, torch.nn.Linear(dim, 4))

    return make


@pytest.fixture
def ewc():
    """ewc(**changes): EWC with its exact Fisher."""
    from cl_bench.strategies.ewc import EWC

    def make(**changes) -> EWC:
        settings = {"strength": 30.0, "estimator": "exact", "samples": None, "batch_size": 5, "mode": "separate", "decay": 1.0}
        return EWC(**(settings | changes))

    return make


@pytest.fixture
def train():
    """train(learner, strategy, stream, steps, of): the loop's calls, in its order, `steps` of a task's `of`; the weights after each."""
    from cl_bench.strategies.weights import flatten

    def train(learner, strategy, stream, steps: int, of: int | None = None) -> list[torch.Tensor]:
        strategy.prepare(learner, stream)
        history = []
        for number, e in enumerate(stream.experiences):
            learner.train_mode(first_task=number == 0)
            strategy.before_task(learner, e)
            data = e.train.to(learner.device)
            for step in range(steps if strategy.learns(e) else 0):
                learner.step, learner.steps = step, of or steps
                learner.reseed("step", e.index, step)
                index = (torch.arange(4) + 4 * (step % 3)).to(learner.device)
                batch = learner.batch(data.raw.index_select(0, index), data.y.index_select(0, index), e.index)
                output = strategy.loss(learner, batch)
                learner.optimizer.zero_grad()
                learner.fabric.backward(output.loss)
                strategy.after_backward(learner)
                learner.update()
                strategy.after_step(learner, batch, output)
                history.append(flatten(learner.parameters))
            learner.reseed("after task", e.index)
            strategy.after_task(learner, e)
        return history

    return train


@pytest.fixture
def source():
    """source(name, data_root, **changes), as conf/data/<name>.yaml and the command line say it."""
    from importlib import import_module
    from pathlib import Path

    from omegaconf import OmegaConf

    from cl_bench.resolve import load

    def make(name, data_root, **changes):
        files = {file.stem: file for file in (Path(__file__).parents[1] / "conf/data").glob("*.yaml")}
        config = OmegaConf.create({"data_root": str(data_root), "data": load(name, files)})
        settings = {**OmegaConf.to_container(config, resolve=True)["data"], **changes}
        module, _, kind = settings.pop("_target_").rpartition(".")
        return getattr(import_module(module), kind)(**settings)

    return make


@pytest.fixture
def view():
    """view(name, **changes), as conf/view/<name>.yaml says it."""
    from omegaconf import OmegaConf

    from cl_bench.build import build
    from cl_bench.overrides import CONF
    from cl_bench.resolve import load

    def make(name, **changes):
        settings = OmegaConf.to_container(load(name, {file.stem: file for file in (CONF / "view").glob("*.yaml")}), resolve=True)
        return build({**settings, **changes}, ["cl_bench."])

    return make


@pytest.fixture
def error():
    """error(call): the one line of the ConfigError that it raises."""
    from cl_bench.core.errors import ConfigError

    def message(call) -> str:
        with pytest.raises(ConfigError) as caught:
            call()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


@pytest.fixture
def picture():
    """picture(path, colour, size): writes an image file of one colour."""
    from PIL import Image

    def write(path, colour, size=(12, 8)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)

    return write


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch):
    """runs(config, path): a whole run, its learner and strategy kept."""
    from toy_runs import Runs

    return Runs(monkeypatch)
