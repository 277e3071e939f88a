"""The learner on another device than the stream, without a GPU: `meta` refuses mixed devices, and every wait for a value."""

from __future__ import annotations

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
def test_steps_and_what_follows_a_task_on_another_device(make_learner, make_network, make_stream, monkeypatch, words: str) -> None:
    learner = make_learner(make_network().to("meta"))
    monkeypatch.setattr(learner, "device", torch.device("meta"))
    config = composed(*f"strategy={words}".split())["strategy"]
    strategy = build({**config, **({"memory_size": 6} if "memory_size" in config else {})}, ["cl_bench."])
    stream: Stream = strategy.arrange(make_stream(3), 0)
    masks = learner.objective.masks(stream)
    learner.masks = None if masks is None else masks.to("meta")
    strategy.prepare(learner, stream)
    for number, e in enumerate(stream.experiences):
        learner.train_mode(first_task=number == 0)
        strategy.before_task(learner, e)
        data = e.train.to(learner.device)
        for step in range(3):
            learner.step, learner.steps = step, 300
            learner.reseed("step", e.index, step)
            index = torch.arange(4).to(learner.device)
            batch = learner.batch(data.raw.index_select(0, index), data.y.index_select(0, index), e.index)
            output = strategy.loss(learner, batch)
            learner.optimizer.zero_grad()
            learner.fabric.backward(output.loss)
            strategy.after_backward(learner)
            learner.update()
            strategy.after_step(learner, batch, output)
        if words in ALONE:
            break
        learner.reseed("after task", e.index)
        strategy.after_task(learner, e)
    assert {p.device.type for p in learner.parameters} == {"meta"}
