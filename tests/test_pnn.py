"""Progressive networks against a slow obvious twin, and what they promise: nothing old ever moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cl_bench.core.learner import Network
from cl_bench.models.mlp import mlp
from cl_bench.probes.readout import read
from cl_bench.strategies.pnn import PNN, tapped

Weights = dict[str, Tensor]


def network() -> Network:
    torch.manual_seed(0)
    backbone, dim = mlp(input_shape=(1, 3, 3), hidden=[5, 6], batch_norm=False, pretrained=False)
    return Network(backbone, nn.Linear(dim, 4))


def resnet() -> Network:
    from timm.models.resnet import BasicBlock, ResNet

    torch.manual_seed(0)
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=0, in_chans=1, channels=(4, 4, 6, 6))
    return Network(backbone, nn.Linear(6, 4))


def column(w: Weights, x: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """h_1, h_2 and the logits of column k for one picture, as written on paper."""
    earlier = [column(w, x, j)[:2] for j in range(k)]

    def lateral(name: str, inputs: list[Tensor]) -> Tensor | float:
        if not inputs:
            return 0.0
        alpha, reduce, lift = w[f"{name}.alpha"], w[f"{name}.reduce.weight"], w[f"{name}.lift.weight"]
        width = len(inputs[0])
        inside = sum(alpha[j] * reduce[:, j * width : (j + 1) * width] @ h.detach() for j, h in enumerate(inputs))
        return lift @ inside.clamp(min=0)

    body = f"backbone.bodies.{k}"
    h1 = (w[f"{body}.1.weight"] @ x + w[f"{body}.1.bias"]).clamp(min=0)
    read_1, read_2 = (lateral(name, [e[i] for e in earlier]) for i, name in enumerate((f"{body}.3.adapter", f"head.adapters.{k - 1}")))
    h2 = (w[f"{body}.3.layer.weight"] @ h1 + w[f"{body}.3.layer.bias"] + read_1).clamp(min=0)
    return h1, h2, w[f"head.heads.{k}.weight"] @ h2 + w[f"head.heads.{k}.bias"] + read_2


def test_pnn_equals_its_twin(make_learner, make_stream, train) -> None:
    stream, steps = make_stream(3), 9
    learner = make_learner(network())
    fresh = make_learner(network())
    PNN(scale=0.5).prepare(fresh, stream)
    w = {name: p.detach().clone().requires_grad_() for name, p in fresh.network.named_parameters()}
    theirs = []
    for t, e in enumerate(stream.experiences):
        mine = [n for n in w if n.startswith((f"backbone.bodies.{t}.", f"head.heads.{t}.", f"head.adapters.{t - 1}."))]
        for step in range(steps):
            loss = torch.zeros((), dtype=torch.float64)
            for i in range(4 * (step % 3), 4 * (step % 3) + 4):
                logits = column(w, e.train.raw[i].double().flatten() / 255, t)[2][list(e.classes)]
                loss = loss - logits.log_softmax(0)[e.classes.index(int(e.train.y[i]))] / 4
            for name, g in zip(mine, torch.autograd.grad(loss, [w[n] for n in mine]), strict=True):
                w[name] = (w[name] - 0.1 * g).detach().requires_grad_()
            theirs.append(torch.cat([p.detach().flatten() for p in w.values()]))
    ours = train(learner, PNN(scale=0.5), stream, steps)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    found = read(learner, stream.experiences[0].train, 5)[1]
    for i, raw in enumerate(stream.experiences[0].train.raw):
        columns = [column(w, raw.double().flatten() / 255, k)[2] for k in range(3)]
        expected = torch.stack([columns[k][c] for c, k in ((0, 2), (1, 0), (2, 1), (3, 2))])  # the latest column with the class
        torch.testing.assert_close(found[i], expected.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("make", [network, resnet])
def test_pnn_loses_nothing(make_learner, make_stream, train, make) -> None:
    """To the bit: batch-norm statistics, weight decay and kept momentum included."""
    stream = make_stream(2)
    learner = make_learner(make())
    learner.make_optimizer = lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)
    learner.batch_norm = "frozen"
    strategy, kept = PNN(scale=0.5), []

    def look(learner, task) -> None:
        logits = read(learner, stream.experiences[0].train, 5)[1]
        kept.append((logits, {n: t.clone() for n, t in learner.network.state_dict().items()}))
        learner.train_mode(first_task=False)  # as the loop before the next task

    strategy.after_task = look
    train(learner, strategy, stream, steps=4)
    (first, before), (second, after) = kept
    assert torch.equal(first[:, :2], second[:, :2])
    moved = {n.split(".")[2] for n in before if not torch.equal(before[n], after[n]) and not n.startswith("head.adapters")}
    assert moved == {"1"} and (make is network or any("running" in n for n in before if not torch.equal(before[n], after[n])))
    assert bool((first[:, 2:] < first[:, :2].amin(1, keepdim=True)).all())  # classes to come cannot win


def test_pnn_adapters_matter_and_are_at_every_layer_but_the_first(make_learner, make_stream, train) -> None:
    stream, histories = make_stream(2), []
    for scale in (0.5, 1e-9):
        learner = make_learner(resnet())
        histories.append(train(learner, PNN(scale=scale), stream, steps=3)[-1])
    assert not torch.allclose(histories[0], histories[1])
    assert tapped(resnet().backbone) == ["layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"]
    gone = [n for n, p in learner.network.named_parameters() if "adapter" in n and p.grad is None]
    assert gone == [] and sum("adapter" in n for n, _ in learner.network.named_parameters()) == 12


def test_pnn_refuses_what_it_cannot_column(make_learner, make_stream, error) -> None:
    class Other(nn.Module):
        pass

    text = error(lambda: PNN(scale=0.1).prepare(make_learner(Network(Other(), nn.Linear(5, 4))), make_stream()))
    assert "Other" in text and "model=mlp" in text
    text = error(lambda: PNN(scale=0.1).prepare(make_learner(Network(network().backbone, nn.Identity())), make_stream()))
    assert "Identity" in text
