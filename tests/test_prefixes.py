"""DualPrompt and CODA-Prompt against slow readings of one image at a time; LoRA, the masked controls, and what they all encode with."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_l2p import network
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from cl_bench.probes.readout import read
from cl_bench.strategies.coda_prompt import CODAPrompt
from cl_bench.strategies.dualprompt import DualPrompt
from cl_bench.strategies.lora import LoRA
from cl_bench.strategies.masked import Masked
from cl_bench.strategies.tokens import class_token, encode

RATE = 0.1


def dual(**changes: Any) -> DualPrompt:
    settings: dict[str, Any] = {"general_length": 2, "general_layers": [0], "expert_length": 3, "expert_layers": [1], "pull": 0.7}
    return DualPrompt(**(settings | {"init": [-1.0, 1.0], "class_mask": True, "batch_size": 7} | changes))


def coda(**changes: Any) -> CODAPrompt:
    settings: dict[str, Any] = {"size": 6, "length": 4, "layers": [0, 1], "orthogonality": 0.3, "class_mask": True, "batch_size": 7}
    return CODAPrompt(**(settings | changes))


def block(b: Any, tokens: Tensor, before_k: Tensor, before_v: Tensor) -> Tensor:
    """tokens [L, D] of one image, head by head and token by token; before_k, before_v [P, D]."""
    h, a = b.norm1(tokens), b.attn
    q, k, v = (a.qkv.weight @ h.t() + a.qkv.bias[:, None]).t().chunk(3, 1)
    k, v, width = torch.cat([before_k, k]), torch.cat([before_v, v]), tokens.shape[1] // a.num_heads
    columns = []
    for head in range(a.num_heads):
        part = slice(head * width, (head + 1) * width)
        columns.append(torch.stack([(k[:, part] @ one / math.sqrt(width)).softmax(0) @ v[:, part] for one in q[:, part]]))
    tokens = tokens + a.proj(torch.cat(columns, 1))
    return tokens + b.mlp(b.norm2(tokens))


def feature(vit: Any, x: Tensor, prefixes: list[tuple[Tensor, Tensor]]) -> Tensor:
    tokens = torch.cat([vit.cls_token[0], vit.patch_embed(x[None])[0]]) + vit.pos_embed[0]
    for b, (k, v) in zip(vit.blocks, prefixes, strict=True):
        tokens = block(b, tokens, k, v)
    return vit.norm(tokens)[0]


def train_twin(stream: Any, theta: list[Tensor], loss_of: Any, steps: int) -> list[Tensor]:
    history = []
    for t, e in enumerate(stream.experiences):
        for step in range(steps):
            index = torch.arange(4) + 4 * (step % 3)
            logits, extra = loss_of([x.double() / 255 for x in e.train.raw[index]], t)
            logits[:, [c for c in range(4) if c not in e.classes]] = -torch.inf
            grads = torch.autograd.grad(F.cross_entropy(logits, e.train.y[index]) + extra, theta, allow_unused=True)
            with torch.no_grad():
                for p, g in zip(theta, grads):
                    p -= RATE * (0 if g is None else g)
            history.append(torch.cat([p.detach().flatten() for p in theta]))
    return history


def prepared(make_learner: Any, stream: Any, strategy: Any) -> tuple[Any, Any, list[Tensor]]:
    learner, vit = make_learner(network(), rate=RATE), network().double().backbone.requires_grad_(False)
    strategy.prepare(learner, stream)
    return learner, vit, [p.detach().clone().requires_grad_() for p in learner.parameters]


def test_dualprompt_equals_its_twin(make_learner, make_stream, train) -> None:
    stream = make_stream(3)
    _, vit, theta = prepared(make_learner, stream, dual())
    shared, own, keys, weight, bias = theta

    def one(x: Tensor, expert: int) -> Tensor:
        return weight @ feature(vit, x, [(shared[0, 0], shared[0, 1]), (own[0, expert, 0], own[0, expert, 1])]) + bias

    def distance(x: Tensor, expert: int) -> Tensor:
        q, k = vit(x[None])[0], keys[expert]
        return 1 - (q @ k) / (q.norm() * k.norm())

    def loss_of(xs: list[Tensor], t: int) -> tuple[Tensor, Tensor]:
        return torch.stack([one(x, t) for x in xs]), 0.7 * sum(distance(x, t) for x in xs) / len(xs)

    theirs = train_twin(stream, theta, loss_of, 3)
    learner = make_learner(network(), rate=RATE)
    for a, b in zip(train(learner, dual(), stream, 3), theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    data = stream.experiences[1].train
    answers = []
    for x in (raw.double() / 255 for raw in data.raw):
        nearest = min(range(3), key=lambda t: float(distance(x, t).detach()))
        answers.append(one(x, nearest).detach())
    torch.testing.assert_close(read(learner, data, 5)[1], torch.stack(answers), rtol=1e-6, atol=1e-9)


def test_coda_prompt_equals_its_twin(make_learner, make_stream, train) -> None:
    stream = make_stream(3)
    _, vit, theta = prepared(make_learner, stream, coda())
    prompts, keys, attention, weight, bias = theta

    def one(x: Tensor, t: int, training: bool) -> Tensor:
        q, prefixes = vit(x[None])[0], []
        for layer in range(2):
            p = torch.zeros(4, 8, dtype=torch.float64)
            for m in range(2 * (t + 1)):
                parts = [part[layer, m] for part in (prompts, keys, attention)]
                value, key, seen = (part.detach() for part in parts) if training and m < 2 * t else parts
                attended = q * seen
                p = p + (attended @ key) / (attended.norm() * key.norm()) * value
            prefixes.append((p[:2], p[2:]))
        return weight @ feature(vit, x, prefixes) + bias

    def overlap(t: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for layer in range(2):
            for part in (prompts, keys, attention):
                rows = [part[layer, m].flatten() for m in range(2 * (t + 1))]
                rows = [row.detach() if m < 2 * t else row for m, row in enumerate(rows)]
                squares = [(a @ b - float(i == j)) ** 2 for i, a in enumerate(rows) for j, b in enumerate(rows)]
                total = total + sum(squares) / len(squares)
        return total

    def loss_of(xs: list[Tensor], t: int) -> tuple[Tensor, Tensor]:
        return torch.stack([one(x, t, True) for x in xs]), 0.3 * overlap(t)

    theirs = train_twin(stream, theta, loss_of, 3)
    learner = make_learner(network(), rate=RATE)
    for a, b in zip(train(learner, coda(), stream, 3), theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    data = stream.experiences[1].train
    answers = torch.stack([one(raw.double() / 255, 2, False).detach() for raw in data.raw])
    torch.testing.assert_close(read(learner, data, 5)[1], answers, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", [dual, coda])
def test_the_transformer_does_not_move(make_learner, make_stream, train, make) -> None:
    learner = make_learner(network())
    before = {k: v.clone() for k, v in learner.network.backbone.state_dict().items()}
    train(learner, make(), make_stream(2), 3)
    after = {k.replace("attn.attention.", "attn."): v for k, v in learner.network.backbone.vit.state_dict().items()}
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_masked_head_equals_a_linear_layer_on_features(make_learner, make_stream, train) -> None:
    stream, net = make_stream(2), network().double()
    head, body = copy.deepcopy(net.head), copy.deepcopy(net.backbone)
    theta = list(head.parameters())

    def loss_of(xs: list[Tensor], t: int) -> tuple[Tensor, float]:
        return head(body(torch.stack(xs)).detach()), 0.0

    theirs = train_twin(stream, theta, loss_of, 3)
    learner = make_learner(net, rate=RATE)
    ours = train(learner, Masked(class_mask=True, backbone="frozen", batch_size=5), stream, 3)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert not any(p.requires_grad for p in learner.network.backbone.parameters())


def test_lora_changes_only_its_pairs_and_the_head(make_learner, make_stream, train) -> None:
    pytest.importorskip("peft")
    learner = make_learner(network())
    ours = LoRA(rank=2, scale=2, layers=["qkv"], class_mask=True)
    train(learner, ours, make_stream(2), 3)
    names = {name for name, p in learner.network.named_parameters() if p.requires_grad}
    assert len(names) == 2 * 2 + 2 and all("lora_" in n or n.startswith("head.") for n in names)
    before = network().double().backbone.state_dict()
    after = {k.replace("base_layer.", ""): v for k, v in learner.network.backbone.state_dict().items() if "lora_" not in k}
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_refusals(make_learner, make_stream, make_network, error, monkeypatch) -> None:
    stream = make_stream(2)
    assert "there is no layer 7" in error(lambda: dual(expert_layers=[7]).prepare(make_learner(network()), stream))
    assert "give each layer to one" in error(lambda: dual(expert_layers=[0]))
    assert "strategy.size=1 components" in error(lambda: coda(size=1).prepare(make_learner(network()), stream))
    assert "even length" in error(lambda: coda(length=3))
    for strategy in (dual(), coda()):
        assert "patch tokens" in error(lambda: strategy.prepare(make_learner(make_network()), stream))  # noqa: B023
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    text = error(lambda: LoRA(rank=2, scale=2, layers=["qkv"], class_mask=True).prepare(make_learner(network()), stream))
    assert "pip install 'cl-bench[peft]'" in text


@pytest.mark.parametrize("name", ["blocks", "blocks.1", "blocks.1.mlp", "norm"])
def test_a_probe_sees_every_token_where_the_head_reads_a_few(name: str) -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=3, patch_size=1, in_chans=1, num_classes=0, embed_dim=8, depth=2, num_heads=2, init_values=0.1)
    x, prompts, seen, computed = torch.randn(3, 1, 3, 3), torch.randn(3, 6, 8, requires_grad=True), [], []

    def look() -> list[Tensor]:
        found = encode(vit, x, prompts, False)
        return [found, *torch.autograd.grad(found.square().sum(), prompts), class_token(vit, x)]

    last: Any = vit.blocks[-1]
    last.mlp.register_forward_pre_hook(lambda module, given: computed.append(given[0].shape[1]))
    few = look()
    torch.testing.assert_close(few[-1], vit(x))
    vit.get_submodule(name).register_forward_hook(lambda *given: seen.append(given[-1].shape[1]))
    torch.testing.assert_close(few, look(), rtol=1e-12, atol=1e-12)
    assert few[0].shape == (3, 6, 8) and seen == [16, 10] and computed == [6, 1, 10, 16, 10]  # 10: timm's own pass
