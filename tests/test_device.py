"""The learner on another device than the stream, without a GPU: `meta` refuses mixed devices, and every wait for a value."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_conf import composed

from cl_bench.build import build
from cl_bench.core.types import Stream

PLAIN = ["sequential", "si", "lwf", "er", "er_balanced", "er_ewc", "der", "derpp", "er_ace", "agem", "cumulative", "gdumb", "pnn"]
ESTIMATED = [
    f"{name} strategy.estimator={e}"
    for name, e in (*(("ewc", e) for e in ("exact", "sample", "batched", "legacy")), ("mas", "exact"), ("mas", "batched"))
]
ALONE = ["icarl", "packnet", "slca", "masked"]  # what they do after a task waits for values


@pytest.mark.parametrize("words", [*PLAIN, *ESTIMATED, *ALONE])
def test_steps_and_what_follows_a_task_on_another_device(make_learner, make_network, make_stream, train, monkeypatch, words: str) -> None:
    learner = make_learner(make_network().to("meta"))
    monkeypatch.setattr(learner, "device", torch.device("meta"))
    config = composed(*f"strategy={words}".split())["strategy"]
    strategy = build({**config, **({"memory_size": 6} if "memory_size" in config else {})}, ["cl_bench."])
    stream: Stream = strategy.arrange(make_stream(3), 0)
    masks = learner.objective.masks(stream)
    learner.masks = None if masks is None else masks.to("meta")
    if words in ALONE:
        stream = replace(stream, experiences=stream.experiences[:1])
        monkeypatch.setattr(strategy, "after_task", lambda learner, task: None)
    train(learner, strategy, stream, 3, of=300)
    assert {p.device.type for p in learner.parameters} == {"meta"}
