"""Experience replay: its loss by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cl_bench.core.seeds import generator
from cl_bench.core.types import Output
from cl_bench.strategies.replay import ER
from cl_bench.strategies.simple import Sequential

SEED = 5  # of make_learner


@pytest.mark.parametrize("loss_over", ["all", "seen", "own"])
def test_er_loss_by_hand(make_learner, make_network, make_stream, loss_over: str) -> None:
    stream = make_stream(2)
    learner = make_learner(make_network(), loss_over=loss_over)
    learner.masks = learner.objective.masks(stream)
    er = ER(memory="reservoir", memory_size=6, batch_size=8, strength=0.7)
    er.prepare(learner, stream)
    for e in stream.experiences:
        learner.reseed("fill", e.index)
        er.after_step(learner, learner.batch(e.train.raw, e.train.y, e.index), Output(torch.zeros(()), torch.zeros(())))
    memory = {k: v.clone() for k, v in er.memory.state_dict().items() if k != "num_seen"}
    assert set(memory["task"].tolist()) == {0, 1}
    new = stream.experiences[1].train
    learner.reseed("step", 1, 0)
    output = er.loss(learner, learner.batch(new.raw[:4], new.y[:4], 1))

    def example(raw: Tensor, y: int, allowed: tuple[int, ...]) -> Tensor:
        logits = learner.network(raw[None].double() / 255)[0]
        return logits[list(allowed)].logsumexp(0) - logits[y]

    open_to = {"all": [(0, 1, 2, 3)] * 2, "seen": [(0, 1, 2, 3)] * 2, "own": [(0, 1), (2, 3)]}[loss_over]
    drawn = torch.randint(0, 6, (8,), generator=generator(SEED, "step", 1, 0)).tolist()
    fresh = sum(example(new.raw[n], int(new.y[n]), open_to[1]) for n in range(4)) / 4
    replay = sum(example(memory["raw"][n], int(memory["y"][n]), open_to[int(memory["task"][n])]) for n in drawn) / 8
    torch.testing.assert_close(output.parts["replay"], 0.7 * replay, rtol=1e-9, atol=0)
    torch.testing.assert_close(output.loss, fresh + 0.7 * replay, rtol=1e-9, atol=0)


def test_er_with_an_empty_memory_or_no_strength_is_plain(make_learner, make_network, make_stream, train) -> None:
    stream = make_stream(2)
    plain = train(make_learner(make_network()), Sequential(), stream, steps=5)
    zero = train(make_learner(make_network()), ER(memory="reservoir", memory_size=6, batch_size=8, strength=0.0), stream, steps=5)
    some = train(make_learner(make_network()), ER(memory="reservoir", memory_size=6, batch_size=8, strength=1.0), stream, steps=5)
    assert all(torch.equal(a, b) for a, b in zip(plain, zero, strict=True))
    assert torch.equal(plain[0], some[0]) and not torch.equal(plain[1], some[1])
