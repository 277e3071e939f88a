"""The learner on another device than the stream, without a GPU: `meta` refuses mixed devices, and every wait for a value."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_conf import composed

from cl_bench.build import build
from cl_bench.core.learner import Network
from cl_bench.core.types import Stream
from cl_bench.models.timm_models import vit
from cl_bench.strategies import frozen

PLAIN = ["sequential", "si", "lwf", "er", "er_balanced", "er_ewc", "der", "derpp", "er_ace", "agem", "cumulative", "gdumb", "pnn"]
ESTIMATED = [
    f"{name} strategy.estimator={e}"
    for name, e in (*(("ewc", e) for e in ("exact", "sample", "batched", "legacy")), ("mas", "exact"), ("mas", "batched"))
]
ALONE = ["icarl", "packnet", "slca", "masked"]  # what they do after a task waits for values
PROMPTED = [
    "l2p",
    "l2p_torch",
    "l2p_r",
    "dualprompt strategy.general_layers=[0] strategy.expert_layers=[1]",
    "coda_prompt strategy.layers=[0,1] strategy.size=6",
]


@pytest.fixture
def train_elsewhere(make_learner, make_stream, train, monkeypatch):
    """train_elsewhere(network, words, *without): three steps a task with the weights on `meta`; without some moments: one task."""

    def run(network: torch.nn.Module, words: str, *without: str) -> None:
        monkeypatch.setattr(frozen, "draws", lambda *_: False)  # there is no generator on `meta`
        learner = make_learner(network.to("meta"))
        monkeypatch.setattr(learner, "device", torch.device("meta"))
        config = composed(*f"strategy={words}".split())["strategy"]
        strategy = build({**config, **({"memory_size": 6} if "memory_size" in config else {})}, ["cl_bench."])
        stream: Stream = strategy.arrange(make_stream(3), 0)
        masks = learner.objective.masks(stream)
        learner.masks = None if masks is None else masks.to("meta")
        if without:
            stream = replace(stream, experiences=stream.experiences[:1])
        for moment in without:
            monkeypatch.setattr(strategy, moment, lambda learner, task: None)
        train(learner, strategy, stream, 3, of=300)
        assert {p.device.type for p in learner.parameters} == {"meta"}

    return run


@pytest.mark.parametrize("words", [*PLAIN, *ESTIMATED])
def test_steps_and_what_follows_a_task_on_another_device(train_elsewhere, make_network, words: str) -> None:
    train_elsewhere(make_network(), words)


@pytest.mark.parametrize("words", ALONE)
def test_steps_on_another_device(train_elsewhere, make_network, words: str) -> None:
    train_elsewhere(make_network(), words, "after_task")


@pytest.mark.parametrize("words", PROMPTED)
def test_steps_of_prompts_on_another_device(train_elsewhere, words: str) -> None:
    sizes = {"patch_size": 1, "width": 12, "depth": 2, "heads": 3}
    backbone, dim = vit(input_shape=(1, 3, 3), name="vit_tiny_patch16_224", pretrained=False, **sizes)
    train_elsewhere(Network(backbone, torch.nn.Linear(dim, 4)), words, "before_task", "after_task")
