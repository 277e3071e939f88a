"""bf16, channels-last and torch.compile: settings of any run, under any strategy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_pretrain import TINY, composed, execute
from toy_runs import PROMPTED, SHALLOW, SMALL, STRATEGIES, VIT

from cl_bench.core.errors import ConfigError
from cl_bench.data.views import ChannelsLast, Plain
from cl_bench.folder import RunFolder
from cl_bench.overrides import CONF

CONV = ["model=resnet_w8", "model.blocks=[1,1,1,1]", "model.channels=3"]

CLASSES = [name for name in STRATEGIES if "_target_:" in (CONF / "strategy" / f"{name}.yaml").read_text()]  # the rest are settings of these


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The inputs of every graph that torch.compile makes; the graph then runs as it is, for a compiler takes minutes."""
    given: list[torch.Tensor] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        given.extend(i for i in inputs if isinstance(i, torch.Tensor))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    return given


def test_without_a_compiler_the_run_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would tell at the first step, over a page."""
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.raises(ConfigError, match=r"runtime.compile=true needs a C\+\+ compiler, and /nowhere/c\+\+ is not here; install it"):
        execute(composed(*TINY, "scenario=toy", "model=mlp", "runtime.compile=true"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("strategy", CLASSES)
def test_every_strategy_takes_all_three_at_once(tmp_path: Path, compiled: list[torch.Tensor], strategy: str) -> None:
    if strategy == "lora":
        pytest.importorskip("peft")
    network = VIT if strategy.startswith(PROMPTED) else ["model=mlp_bn", "model.hidden=[8]"]  # convolutions: below
    fast = ["runtime.precision=bf16-mixed", "runtime.channels_last=true", "runtime.compile=true", "train.steps=2", "train.epochs=null"]
    config = composed(*TINY, "scenario=toy", *network, f"strategy={strategy}", *SMALL.get(strategy, []), *SHALLOW.get(strategy, []), *fast)
    execute(config, tmp_path / "run")
    values = [row["value"] for row in RunFolder(tmp_path / "run").read_rows()]
    assert values and all(0 <= value <= 1 for value in values)


def test_channels_last_is_the_same_picture() -> None:
    raw = torch.randint(0, 256, (2, 3, 5, 4)).to(torch.uint8)
    plain = Plain(mean=0.5, std=0.5)
    found = ChannelsLast(plain)(raw, None)
    assert torch.equal(found, plain(raw, None)) and found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("strategy", ["ewc", "derpp", "packnet", "pnn", "lwf", "icarl"])
def test_compiled_and_channels_last_train_the_same(tmp_path: Path, compiled: list[torch.Tensor], strategy: str) -> None:
    config = composed(
        *TINY,
        "scenario=toy",
        *CONV,
        "train.steps=2",
        "train.epochs=null",
        f"strategy={strategy}",
        "runtime.save_backbone=true",
        "runtime.precision=64-true",
    )
    plain = load_file(execute(config, tmp_path / "plain") / "backbone.safetensors")
    torch.set_default_dtype(torch.float32)  # the first run changed it
    config["runtime"] |= {"compile": True, "channels_last": True}
    fast = load_file(execute(config, tmp_path / "fast") / "backbone.safetensors")
    given = [image for image in compiled if image.shape[1:] == (3, 6, 6)]
    assert given and all(image.is_contiguous(memory_format=torch.channels_last) for image in given)
    assert fast.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(fast[name], tensor, rtol=1e-6, atol=1e-8)
