"""iCaRL against a slow obvious twin: the losses example by example, herding and nearest means by loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cl_bench.core.learner import Network
from cl_bench.core.seeds import generator
from cl_bench.core.types import Stream
from cl_bench.strategies.compose import Compose
from cl_bench.strategies.icarl import ICaRL, herd

SEED, SIZE, DRAWN = 5, 9, 6  # seed of make_learner; the memory is no multiple of the classes


def unit(v: Tensor) -> Tensor:
    return v / (v * v).sum().sqrt()


def herd_by_hand(phi: list[Tensor], count: int) -> list[int]:
    """1611.07725, algorithm 4, every average brought to length 1 as its footnote says."""
    mean, chosen = unit(sum(phi) / len(phi)), []
    while len(chosen) < min(count, len(phi)):
        left = [n for n in range(len(phi)) if n not in chosen]
        away = {n: float((mean - unit((phi[n] + sum(phi[c] for c in chosen)) / (len(chosen) + 1))).norm()) for n in left}
        chosen.append(min(away, key=lambda n: away[n]))
    return chosen


def twin(network: Network, stream: Stream, steps: int) -> tuple[list[Tensor], list[tuple[list[tuple[Tensor, int]], dict[int, Tensor]]]]:
    """Weights after each step; after each task the exemplars, and the prototypes by class."""
    theta = [p.detach().double().clone().requires_grad_() for p in network.parameters()]

    def feature(raw: Tensor, weights: list[Tensor]) -> Tensor:
        return (raw.double().flatten() / 255 @ weights[0].t() + weights[1]).clamp(min=0)

    exemplars: dict[int, list[Tensor]] = {}
    history, ends = [], []
    for e in stream.experiences:
        old = [p.detach().clone() for p in theta]
        labelled, distilled = set(e.classes), set(exemplars) - set(e.classes)
        for step in range(steps):
            examples = [(e.train.raw[n], int(e.train.y[n])) for n in range(4 * (step % 3), 4 * (step % 3) + 4)]
            memory = [(raw, c) for c in sorted(exemplars) for raw in exemplars[c]]
            if memory:
                drawn = torch.randint(0, len(memory), (DRAWN,), generator=generator(SEED, "step", e.index, step)).tolist()
                examples += [memory[n] for n in drawn]
            loss = torch.zeros((), dtype=torch.float64)
            for raw, y in examples:
                g = torch.sigmoid(feature(raw, theta) @ theta[2].t() + theta[3])
                q = torch.sigmoid(feature(raw, old) @ old[2].t() + old[3])
                for c in labelled:
                    loss = loss - (g[c].log() if c == y else (1 - g[c]).log())
                for c in distilled:
                    loss = loss - (q[c] * g[c].log() + (1 - q[c]) * (1 - g[c]).log())
            grads = torch.autograd.grad(loss / len(examples), theta)
            theta = [(p - 0.1 * g).detach().requires_grad_() for p, g in zip(theta, grads, strict=True)]
            history.append(torch.cat([p.detach().flatten() for p in theta]))
        found = {c: exemplars.get(c, []) + [e.train.raw[n] for n in range(len(e.train)) if e.train.y[n] == c] for c in labelled}
        share = SIZE // len(set(exemplars) | labelled)
        for c in distilled:
            exemplars[c] = exemplars[c][:share]
        for c, pool in found.items():
            exemplars[c] = [pool[n] for n in herd_by_hand([unit(feature(raw, theta)).detach() for raw in pool], share)]
        means = {c: unit(sum(unit(feature(raw, theta)).detach() for raw in kept)) for c, kept in exemplars.items()}
        ends.append(([(raw, c) for c in sorted(exemplars) for raw in exemplars[c]], means))
    return history, ends


@pytest.mark.parametrize("tasks", [1, 2, 3])  # in the third, old classes come again
def test_icarl_equals_its_twin(make_learner, make_network, make_stream, train, tasks: int) -> None:
    stream = make_stream(tasks)
    learner, icarl = make_learner(make_network()), ICaRL(memory_size=SIZE, batch_size=DRAWN)
    history, ends = twin(make_network(), stream, 9)
    for a, b in zip(train(learner, icarl, stream, steps=9), history, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    exemplars, means = ends[-1]
    assert icarl.num_kept == len(exemplars) and icarl.y[: icarl.num_kept].tolist() == [c for _, c in exemplars]
    assert all(torch.equal(a, b) for a, (b, _) in zip(icarl.raw, exemplars, strict=False))
    learner.network.eval()
    raw = stream.experiences[0].train.raw
    said = learner.network(raw.double() / 255)
    for n in range(len(raw)):
        phi = unit(learner.network.features(raw[n : n + 1].double() / 255)[0].detach())
        expected = [-float(((phi - means[c]) ** 2).sum()) if c in means else -4.0 for c in range(4)]
        torch.testing.assert_close(said[n], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    learner.network.train()
    head = learner.network.head
    torch.testing.assert_close(
        learner.network(raw.double() / 255), learner.network.features(raw.double() / 255) @ head.weight.t() + head.bias
    )


def test_herding_by_hand() -> None:
    phi = torch.nn.functional.normalize(torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert herd(phi, 7).tolist() == herd_by_hand(list(phi), 7)
    assert sorted(herd(phi, 20).tolist()) == list(range(12))


def test_icarl_state_carries_on_into_a_network_of_the_same_shape(make_learner, make_network, make_stream, train) -> None:
    stream, learner, other = make_stream(2), make_learner(make_network()), make_learner(make_network())
    names = list(learner.network.state_dict())
    icarl, again = ICaRL(memory_size=SIZE, batch_size=DRAWN), ICaRL(memory_size=SIZE, batch_size=DRAWN)
    train(learner, icarl, stream, steps=3)
    assert list(learner.network.state_dict()) == names  # a plain run loads it, and it a plain run's
    again.prepare(other, stream)
    other.load_state_dict(learner.state_dict())
    again.load_state_dict(icarl.state_dict())
    x = stream.experiences[1].train.raw.double() / 255
    assert torch.equal(other.network.eval()(x), learner.network.eval()(x))


def test_icarl_refuses_what_it_cannot_do(make_learner, make_network, make_stream, error, ewc) -> None:
    learner, stream = make_learner(make_network()), make_stream(2)
    assert "memory_size=3 is fewer than the 4 classes" in error(lambda: ICaRL(memory_size=3, batch_size=2).prepare(learner, stream))
    learner.objective.needs_labels = False
    assert "needs labels, which objective Supervised" in error(lambda: ICaRL(memory_size=9, batch_size=2).prepare(learner, stream))
    assert "ICaRL" in error(lambda: Compose(parts={"one": ICaRL(memory_size=9, batch_size=2), "ewc": ewc()}))
