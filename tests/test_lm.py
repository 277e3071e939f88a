"""Language models: the objective and its slow twins, causality, what a memory and a probe keep."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cl_bench.core.learner import Learner, Network
from cl_bench.core.types import Batch, Examples, Experience, Stream, Test
from cl_bench.data.views import Tokens
from cl_bench.models.lm import lm
from cl_bench.objectives.causal_lm import CausalLM
from cl_bench.probes.readout import observe
from cl_bench.probes.text import TokenLoss
from cl_bench.strategies.fisher import fisher
from cl_bench.strategies.lwf import distil
from cl_bench.strategies.memory import Reservoir
from cl_bench.strategies.weights import flatten

V, L = 7, 5


def network(heads: int = 2) -> Network:
    torch.manual_seed(0)
    backbone, dim = lm(input_shape=(L + 1,), vocabulary=V, pretrained=False, width=8, depth=2, heads=heads)
    net = Network(backbone, CausalLM().head(dim, V)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))  # far from the timid start, where all texts look alike
    return net


def blocks(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, V, (count, L + 1), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@pytest.fixture
def learner(make_learner) -> Learner:
    made = make_learner(network())
    made.objective, made.view = CausalLM(), Tokens()
    return made


def batch(raw: Tensor) -> Batch:
    return Batch(raw, torch.zeros(len(raw), dtype=torch.int64), 0)


def test_loss_equals_its_twin(learner: Learner) -> None:
    """-log p of each next token, one prefix at a time."""
    raw = blocks(3)
    total = 0.0
    for text in raw.tolist():
        for at in range(L):
            logits = learner.network(torch.tensor([text[: at + 1]]))[0, -1]
            total -= math.log(float((logits[text[at + 1]].exp() / logits.exp().sum()).detach()))
    output = learner.teach(batch(raw))
    assert float(output.loss.detach()) == pytest.approx(total / (3 * L), abs=1e-9) and output.outputs.shape == (3, L, V)


def test_a_later_token_never_changes_an_earlier_logit() -> None:
    net, raw = network(), blocks(1)[:, :-1].long()
    before = net(raw)
    for at in range(L):
        other = raw.clone()
        other[0, at] = (other[0, at] + 1) % V
        after = net(other)
        assert torch.equal(after[0, :at], before[0, :at]) and not torch.equal(after[0, at], before[0, at])


def test_the_last_token_is_predicted_and_never_read(learner: Learner) -> None:
    raw = blocks(2)
    assert torch.equal(learner.view(raw, None), raw[:, :-1].long())
    assert torch.equal(CausalLM().targets(batch(raw)), raw[:, 1:].long())


@pytest.mark.parametrize("estimator", ["empirical", "sample", "batched"])
def test_fisher_of_text_equals_its_twin(learner: Learner, estimator: str) -> None:
    """Per block by autograd: the square of the gradient of the sum over its tokens."""
    raw, order = blocks(4), torch.tensor([2, 0, 3, 1])
    task = Experience(0, "text", Examples(raw, torch.zeros(4, dtype=torch.int64)), tuple(range(V)))
    learner.reseed("after task", 0)
    found = fisher(estimator, learner, task, order, 2)
    learner.reseed("after task", 0)
    log_p, targets = learner.network(raw[order, :-1].long()).log_softmax(-1), raw[order, 1:].long()
    if estimator == "sample":
        draws = [torch.rand(2, L, 1, generator=learner.rng, dtype=torch.float64) for _ in range(2)]
        targets = (log_p.exp().cumsum(-1) < torch.cat(draws)).sum(-1).clamp(max=V - 1)
    block = [sum(log_p[n, at, targets[n, at]] for at in range(L)) for n in range(4)]
    goals = [(block[0] + block[1]) / 2, (block[2] + block[3]) / 2] if estimator == "batched" else block
    expected = sum(flatten(torch.autograd.grad(g, learner.parameters, retain_graph=True)).square() for g in goals) / len(goals)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-12)


def test_distillation_of_text_is_the_mean_over_tokens() -> None:
    rng = torch.Generator().manual_seed(1)
    new, old = (torch.randn(2, L, V, generator=rng, dtype=torch.float64) for _ in range(2))
    heads = [torch.arange(V)[None]]
    each = [distil(new[n, at : at + 1], old[n, at : at + 1], heads, 2.0) for n in range(2) for at in range(L)]
    torch.testing.assert_close(distil(new, old, heads, 2.0), sum(each) / len(each))


def test_the_probe_needs_one_batch_at_a_time(learner: Learner) -> None:
    """The same loss by portions of any size, and no more logits than a portion has."""
    raw, largest = blocks(10), []
    learner.network.head.register_forward_hook(lambda module, given, output: largest.append(len(output)))
    data = Examples(raw, torch.zeros(10, dtype=torch.int64))
    stream = Stream((Experience(0, "a", data, tuple(range(V))),), {"a": Test(data, tuple(range(V)), 0)}, V)
    looks = [
        list(observe(learner, stream, {"a": data}, 0, {"loss": TokenLoss()}, future=False, batch_size=n, folder=Path())) for n in (3, 10)
    ]
    assert max(largest[:4]) == 3 and learner.network.training
    assert looks[0][0]["value"] == pytest.approx(float(learner.teach(batch(raw)).loss.detach()), abs=1e-12)
    assert looks[0][0] == {**looks[1][0], "value": pytest.approx(looks[1][0]["value"])}


def test_a_memory_keeps_tokens_above_a_byte() -> None:
    raw = blocks(6).int() + 1000
    data = Examples(raw, torch.zeros(6, dtype=torch.int64))
    stream = Stream((Experience(0, "a", data, tuple(range(1007))),), {}, 1007)
    memory = Reservoir(6, stream, torch.device("cpu"), torch.zeros(stream.output_shape))
    memory.add(raw, data.y, 0, torch.Generator().manual_seed(0), torch.ones(6, L, 1007))
    assert torch.equal(memory.raw, raw) and memory.columns["outputs"].shape == (6, L, 1007)
