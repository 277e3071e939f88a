"""PackNet against a slow obvious twin; and old tasks' weights stay to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cl_bench.core.learner import Network
from cl_bench.probes.readout import read
from cl_bench.strategies.packnet import PackNet


def twin(network, stream, steps: int, prune: float, prune_at: int):
    """Four tensors, and an owner for each number of the one matrix that is pruned: None while free."""
    w, b, head, bias = (p.detach().double().clone().requires_grad_() for p in network.parameters())
    owner = [[None] * w.shape[1] for _ in range(w.shape[0])]
    history = []

    def logits(x, matrix):
        return head @ (matrix @ x + b).clamp(min=0) + bias

    for t, e in enumerate(stream.experiences):
        pruned = False
        for step in range(steps):
            loss = torch.zeros((), dtype=torch.float64)
            for i in range(4 * (step % 3), 4 * (step % 3) + 4):
                own = logits(e.train.raw[i].double().flatten() / 255, w)[list(e.classes)]
                loss = loss - own.log_softmax(0)[e.classes.index(int(e.train.y[i]))] / 4
            grads = torch.autograd.grad(loss, (w, b, head, bias))
            with torch.no_grad():
                for i, row in enumerate(owner):
                    for j, who in enumerate(row):
                        if who == (t if pruned else None):
                            w[i, j] -= 0.1 * grads[0][i, j]
                if t == 0:
                    b -= 0.1 * grads[1]
                for c in e.classes:
                    head[c] -= 0.1 * grads[2][c]
                    bias[c] -= 0.1 * grads[3][c]
                if step + 1 == prune_at:
                    free = sorted((abs(float(w[i, j])), i, j) for i, row in enumerate(owner) for j, who in enumerate(row) if who is None)
                    for rank, (_, i, j) in enumerate(free):
                        if rank < round(prune * len(free)):
                            w[i, j] = 0
                        else:
                            owner[i][j] = t
                    pruned = True
            history.append(torch.cat([p.detach().flatten() for p in (w, b, head, bias)]))

    def answer(x, c, task):
        old = torch.tensor([[float(who is not None and who <= task) for who in row] for row in owner])
        return logits(x, w.detach() * old)[c].detach()

    return history, answer


@pytest.mark.parametrize(("prune", "share", "prune_at"), [(0.75, 0.6667, 6), (0.5, 0.0, 1), (0.6, 1.0, 9)])
def test_packnet_equals_its_twin(make_learner, make_network, make_stream, train, prune: float, share: float, prune_at: int) -> None:
    stream, learner = make_stream(3), make_learner(make_network())
    ours = train(learner, PackNet(prune=prune, train_share=share), stream, steps=9)
    theirs, answer = twin(make_network(), stream, 9, prune, prune_at)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    data = stream.experiences[0].train
    found = read(learner, data, 5)[1]
    for i, raw in enumerate(data.raw):
        for c, task in ((0, 2), (1, 0), (2, 1), (3, 2)):  # the latest task with the class
            torch.testing.assert_close(found[i, c], answer(raw.double().flatten() / 255, c, task), rtol=1e-9, atol=1e-11)


def convolutional() -> Network:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(54, 8), nn.ReLU())
    return Network(body, nn.Linear(8, 4))


def test_packnet_keeps_old_tasks_to_the_bit(make_learner, make_stream, train) -> None:
    """Batch norm, weight decay and kept momentum included; a task's answer is the one it was trained to give."""
    stream, learner = make_stream(2), make_learner(convolutional())
    learner.make_optimizer = lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)
    learner.new_optimizer()
    strategy, kept = PackNet(prune=0.75, train_share=0.5), []

    def look(learner, task) -> None:
        data = stream.experiences[0].train
        logits = read(learner, data, 5)[1]
        kept.append((logits, {n: t.clone() for n, t in learner.network.state_dict().items()}))
        learner.network.eval()
        with torch.no_grad():
            plain = learner.network.head.head(learner.network.backbone.backbone(learner.view(data.raw, None)))
        torch.testing.assert_close(logits[:, list(task.classes)], plain[:, list(task.classes)], rtol=1e-9, atol=1e-11)

    strategy.after_task = look
    begin = strategy.before_task

    def before(learner, task) -> None:
        learner.train_mode(first_task=task.index == 0)  # the loop's order: mode first, then before_task
        begin(learner, task)

    strategy.before_task = before
    train(learner, strategy, stream, steps=6)
    (first, before_state), (second, after) = kept
    assert torch.equal(first[:, :2], second[:, :2])
    same = {n for n in after if torch.equal(before_state[n], after[n])}
    assert {n for n in after if n not in same} == {"backbone.backbone.0.weight", "backbone.backbone.4.weight", "backbone.owner"} | {
        "head.head.weight",
        "head.head.bias",
    }
    owner = strategy.packed.owners[1].flatten()
    assert [int((owner == t).sum()) for t in (0, 1, 2)] == [432 - 324, 324 - 243, 243]


def test_packnet_refuses_a_share_that_leaves_nothing(make_learner, make_network, make_stream, error) -> None:
    text = error(lambda: PackNet(prune=0.1, train_share=0.5).prepare(make_learner(make_network()), make_stream()))
    assert "strategy.prune=0.1" in text and "task 2 of 3" in text and "45 weights" in text
    text = error(lambda: PackNet(prune=1.0, train_share=0.5).prepare(make_learner(make_network()), make_stream()))
    assert "strategy.prune=1.0 gives back all 45 weights" in text
    text = error(lambda: PackNet(prune=0.5, train_share=0.5).prepare(make_learner(Network(nn.Flatten(), nn.Linear(9, 5))), make_stream()))
    assert "row of weights per class" in text


def test_a_task_that_ends_before_its_pruning_keeps_its_share(make_learner, make_network, make_stream, train) -> None:
    """As when a match ends the first task early, here without a step."""
    strategy = PackNet(prune=0.5, train_share=0.6667)
    train(make_learner(make_network()), strategy, make_stream(2), steps=0)
    assert strategy.packed.owner.bincount(minlength=3).tolist() == [23, 11, 11]  # of 45
