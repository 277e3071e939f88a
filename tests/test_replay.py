"""ER, DER, DER++, ER-ACE and A-GEM against slow obvious twins in plain tensors, examples one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.learner import Network
from cl_bench.core.seeds import generator
from cl_bench.core.types import Stream
from cl_bench.strategies.agem import AGEM
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.compose import Compose
from cl_bench.strategies.der import DER
from cl_bench.strategies.derpp import DERpp
from cl_bench.strategies.er_ace import ERACE
from cl_bench.strategies.replay import ER

SEED = 5  # of make_learner
OWN = [{0, 1}, {2, 3}, {0, 3}]  # of make_stream
SEEN = [{0, 1}, {0, 1, 2, 3}, {0, 1, 2, 3}]
SETTINGS = {"memory": "reservoir", "memory_size": 6, "batch_size": 8}
STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "er": lambda **more: ER(**{**SETTINGS, "strength": 0.7, **more}),
    "der": lambda **more: DER(**{**SETTINGS, "alpha": 0.6, "light": None, **more}),
    "derpp": lambda **more: DERpp(**{**SETTINGS, "alpha": 0.6, "light": None, "beta": 0.4, **more}),
    "er_ace": lambda **more: ERACE(**{**SETTINGS, **more}),
    "agem": lambda **more: AGEM(**{**SETTINGS, **more}),
}


def twin(method: str, network: Network, stream: Stream, steps: int, loss_over: str) -> list[Tensor]:
    """The five formulas, one example at a time, with Vitter's loop for the memory."""
    theta = [p.detach().double().clone().requires_grad_() for p in network.parameters()]

    def logits(raw: Tensor) -> Tensor:
        hidden = (raw.double().flatten() / 255 @ theta[0].t() + theta[1]).clamp(min=0)
        return hidden @ theta[2].t() + theta[3]

    def loss_of(raw: Tensor, y: int, classes: set[int]) -> Tensor:
        z = logits(raw)
        return z[sorted(classes)].logsumexp(0) - z[y]

    def open_to(now: int, task: int) -> set[int]:
        return {"all": {0, 1, 2, 3}, "seen": SEEN[now], "own": OWN[task]}[loss_over]

    memory: list[tuple[Tensor, int, int, Tensor]] = []
    history, count, met = [], 0, set()

    def keep(raw: Tensor, y: int, task: int, z: Tensor, rng: torch.Generator) -> None:
        nonlocal count
        slot = int(torch.rand(1, generator=rng, dtype=torch.float64) * (count + 1))
        if count < 6:
            memory.append((raw, y, task, z))
        elif slot < 6:
            memory[slot] = (raw, y, task, z)
        count += 1

    for e in stream.experiences:
        for step in range(steps):
            rng = generator(SEED, "step", e.index, step)

            def draw(rng: torch.Generator = rng) -> list[tuple[Tensor, int, int, Tensor]]:
                return [memory[n] for n in torch.randint(0, len(memory), (8,), generator=rng).tolist()]

            raws = [e.train.raw[n] for n in range(4 * (step % 3), 4 * (step % 3) + 4)]
            ys = [int(e.train.y[n]) for n in range(4 * (step % 3), 4 * (step % 3) + 4)]
            before = [logits(raw).detach() for raw in raws]
            allowed = open_to(e.index, e.index)
            if method == "er_ace":
                allowed = allowed & (set(ys) | ({0, 1, 2, 3} - met))
                met |= set(ys)
            loss = sum(loss_of(raw, y, allowed) for raw, y in zip(raws, ys, strict=True)) / 4
            if memory and method == "er":
                loss = loss + 0.7 * sum(loss_of(raw, y, open_to(e.index, t)) for raw, y, t, _ in draw()) / 8
            if memory and method in ("der", "derpp"):
                loss = loss + 0.6 * sum(((logits(raw) - z) ** 2).sum() for raw, _, _, z in draw()) / (8 * 4)
            if memory and method == "derpp":
                loss = loss + 0.4 * sum(loss_of(raw, y, open_to(e.index, t)) for raw, y, t, _ in draw()) / 8
            if memory and method == "er_ace":
                loss = loss + sum(loss_of(raw, y, open_to(e.index, t) & met) for raw, y, t, _ in draw()) / 8
            g = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, theta)])
            if memory and method == "agem":
                old = sum(loss_of(raw, y, open_to(e.index, t)) for raw, y, t, _ in draw()) / 8
                r = torch.cat([grad.flatten() for grad in torch.autograd.grad(old, theta)])
                if g @ r < 0:
                    g = g - (g @ r) / (r @ r) * r
            parts = g.split([p.numel() for p in theta])
            theta = [(p - 0.1 * d.view_as(p)).detach().requires_grad_() for p, d in zip(theta, parts, strict=True)]
            history.append(torch.cat([p.detach().flatten() for p in theta]))
            if method != "agem":
                for raw, y, z in zip(raws, ys, before, strict=True):
                    keep(raw, y, e.index, z, rng)
        if method == "agem":
            rng = generator(SEED, "after task", e.index)
            for raw, y in zip(e.train.raw, e.train.y.tolist(), strict=True):
                keep(raw, y, e.index, torch.zeros(4), rng)
    return history


@pytest.mark.parametrize("loss_over", ["all", "seen", "own"])
@pytest.mark.parametrize("method", STRATEGIES)
def test_replay_equals_its_twin(make_learner, make_network, make_stream, train, method: str, loss_over: str) -> None:
    stream = make_stream(3)
    learner = make_learner(make_network(), loss_over=loss_over)
    learner.masks = learner.objective.masks(stream)
    ours = train(learner, STRATEGIES[method](), stream, steps=6)
    for a, b in zip(ours, twin(method, make_network(), stream, 6, loss_over), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_agem_projects_sometimes_and_never_lets_the_remembered_loss_rise(make_learner, make_network, make_stream) -> None:
    stream, product = make_stream(2), []
    learner, agem = make_learner(make_network()), AGEM(**SETTINGS)
    agem.prepare(learner, stream)
    agem.after_task(learner, stream.experiences[0])
    for step in range(10):
        new = stream.experiences[step % 2].train  # a step on old examples lowers the remembered loss
        batch = learner.batch(new.raw, new.y, 1)
        learner.reseed("step", 1, step)
        old, _ = agem.recall(learner, 1)
        reference = torch.autograd.grad(learner.teach(old).loss, learner.parameters)
        learner.reseed("step", 1, step)
        learner.optimizer.zero_grad()
        agem.loss(learner, batch).loss.backward()
        before = sum((p.grad * r).sum() for p, r in zip(learner.parameters, reference, strict=True))
        agem.after_backward(learner)
        after = sum((p.grad * r).sum() for p, r in zip(learner.parameters, reference, strict=True))
        torch.testing.assert_close(after, before.clamp(min=0), rtol=1e-9, atol=1e-12)
        product.append(float(before))
        learner.update()
    assert min(product) < 0 < max(product)


@pytest.mark.parametrize("method", STRATEGIES)
def test_a_balanced_memory_smaller_than_the_classes_is_refused(make_learner, make_network, make_stream, error, method: str) -> None:
    small = STRATEGIES[method](memory="balanced", memory_size=3)
    assert "memory_size=3 is fewer than the 4 classes" in error(lambda: small.prepare(make_learner(make_network()), make_stream(2)))
    STRATEGIES[method](memory="balanced", memory_size=4).prepare(make_learner(make_network()), make_stream(2))
    STRATEGIES[method](memory_size=3).prepare(make_learner(make_network()), make_stream(2))


@pytest.mark.parametrize("method", STRATEGIES)
def test_compose_takes_all_but_the_one_with_a_loss_of_its_own(ewc, method: str) -> None:
    if method == "er_ace":
        with pytest.raises(ConfigError, match=r"strategy\.parts\.one \(ERACE\)"):
            Compose(parts={"one": STRATEGIES[method](), "ewc": ewc()})
    else:
        assert Compose(parts={"one": STRATEGIES[method](), "ewc": ewc()}).parts.keys() == {"one", "ewc"}


def test_no_strength_is_plain(make_learner, make_network, make_stream, train) -> None:
    stream = make_stream(2)
    nothing = [DER(**SETTINGS, alpha=0.0, light=None), DERpp(**SETTINGS, alpha=0.0, beta=0.0, light=None), Strategy()]
    der, derpp, plain = (train(make_learner(make_network()), s, stream, steps=5)[-1] for s in nothing)
    assert torch.equal(der, plain) and torch.equal(derpp, plain)
