"""L2P against a slow reading of one image at a time, and what it promises of frozen weights, queries and refusals."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cl_bench.core.learner import Network
from cl_bench.core.types import Examples
from cl_bench.data.views import CropFlip
from cl_bench.probes.readout import read
from cl_bench.strategies.frozen import Once
from cl_bench.strategies.l2p import L2P, PromptedViT
from cl_bench.strategies.pool import Pool
from cl_bench.strategies.replay import ER
from cl_bench.strategies.tokens import class_token

CONF, DIM, RATE = Path(__file__).parents[1] / "conf/strategy", 8, 0.1
PRESETS: dict[str, dict[str, Any]] = {
    "l2p_paper": {},
    "l2p_jax": {"vote": 3},
    "l2p_torch": {"vote": None},
    "penalty": {"frequency_penalty": True},
    "mask": {"prompt_mask": True, "copy_prompts": True, "size": 6},
    "one": {"size": 1, "top": 1, "class_mask": False},
}


def network() -> Network:
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=3, patch_size=1, in_chans=1, num_classes=0, embed_dim=DIM, depth=2, num_heads=2)
    for p in vit.parameters():  # timm's first weights hardly look at the image
        nn.init.normal_(p, std=0.5)
    return Network(vit, nn.Linear(DIM, 4))


def l2p(preset: str, **changes: Any) -> L2P:
    settings: dict[str, Any] = {}
    for name in dict.fromkeys(("l2p", preset if preset.startswith("l2p") else "l2p")):
        settings |= OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    settings |= {"size": 5, "length": 2, "top": 3, "batch_size": 7} | (PRESETS.get(preset, {}) | changes)
    return L2P(**{k: v for k, v in settings.items() if k not in ("_target_", "defaults")})


class Twin:
    """One image at a time, from the formulas; tokens lie as the published codes lay them."""

    def __init__(self, strategy: L2P, learner: Any):
        self.s, self.vit = strategy, copy.deepcopy(learner.network.backbone.vit)
        parts = (strategy.pool.prompts, strategy.pool.keys, learner.network.head.weight, learner.network.head.bias)
        self.prompts, self.keys, self.weight, self.bias = self.theta = [p.detach().clone().requires_grad_() for p in parts]
        self.taken, self.before = [0] * strategy.size, [0] * strategy.size

    def distances(self, x: Tensor) -> list[Tensor]:
        q = self.vit(x[None])[0].detach()
        return [1 - (q @ k) / (q.norm() * k.norm()) for k in self.keys]

    def choose(self, found: list[list[float]], training: bool, task: int) -> list[list[int]]:
        s, out = self.s, []
        if training and s.prompt_mask:
            return [list(range(task * s.top, (task + 1) * s.top)) for _ in found]
        for d in found:
            share = [n / sum(self.before) for n in self.before] if s.frequency_penalty and training and sum(self.before) else [1.0] * s.size
            out.append(sorted(range(s.size), key=lambda i: (d[i] * share[i], d[i], i))[: s.top])
        if s.selection == "per_sample":
            return out
        voted, size = [], s.vote or len(out)
        for group in (out[i : i + size] for i in range(0, len(out), size)):
            every = [i for ids in group for i in ids]
            ranked = sorted(set(every), key=lambda i: (-every.count(i), i))
            ids = (ranked + [min(every)] * s.top)[: s.top]
            voted += [ids] * len(group)
        return voted

    def logits(self, x: Tensor, ids: list[int]) -> Tensor:
        vit, p = self.vit, torch.cat([self.prompts[i] for i in ids])
        patches, where = vit.patch_embed(x[None])[0], vit.pos_embed[0]
        first = (vit.cls_token[0] + where[:1]).detach()
        if self.s.position == "class":
            tokens, at = torch.cat([first, p + where[:1], patches + where[1:]]), range(1, 1 + len(p))
        else:
            tokens, at = torch.cat([p, first, patches + where[1:]]), range(len(p))
        for block in vit.blocks:
            tokens = block(tokens[None])[0]
        outputs = [vit.norm(tokens[i]) for i in at]
        return self.weight @ (sum(outputs) / len(outputs)) + self.bias

    def forward(self, xs: Tensor, training: bool, task: int = 0) -> tuple[Tensor, Tensor]:
        distances = [self.distances(x) for x in xs]
        chosen = self.choose([[float(d.detach()) for d in row] for row in distances], training, task)
        for ids in chosen if training else ():
            for i in ids:
                self.taken[i] += 1
        pull = sum(row[i] for row, ids in zip(distances, chosen) for i in ids) / len(xs)
        return torch.stack([self.logits(x, ids) for x, ids in zip(xs, chosen)]), pull

    def train(self, stream: Any, steps: int) -> list[Tensor]:
        history = []
        for t, e in enumerate(stream.experiences):
            self.before = list(self.taken)
            if self.s.copy_prompts and t:
                with torch.no_grad():
                    for i in range(self.s.top):
                        self.prompts[t * self.s.top + i] = self.prompts[(t - 1) * self.s.top + i]
            for step in range(steps):
                index = torch.arange(4) + 4 * (step % 3)
                logits, pull = self.forward(e.train.raw[index].double() / 255, True, t)
                closed = [c for c in range(4) if c not in e.classes] if self.s.class_mask else []
                logits[:, closed] = -torch.inf
                loss = F.cross_entropy(logits, e.train.y[index]) + self.s.pull * pull
                grads = torch.autograd.grad(loss, self.theta, allow_unused=True)
                with torch.no_grad():
                    for p, g in zip(self.theta, grads):
                        p -= RATE * (0 if g is None else g)
                history.append(torch.cat([p.detach().flatten() for p in self.theta]))
        return history


@pytest.mark.parametrize("preset", PRESETS)
def test_l2p_equals_its_twin(make_learner, make_stream, train, preset: str) -> None:
    stream, learner, fresh = make_stream(2), make_learner(network(), rate=RATE), make_learner(network(), rate=RATE)
    first = l2p(preset)
    first.prepare(fresh, stream)
    twin = Twin(first, fresh)
    theirs = twin.train(stream, 5)
    ours = train(learner, strategy := l2p(preset), stream, 5)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    data = stream.experiences[1].train
    torch.testing.assert_close(read(learner, data, 12)[1], twin.forward(data.raw.double() / 255, False)[0].detach(), rtol=1e-6, atol=1e-9)
    assert strategy.pool.counts.tolist() == twin.taken
    assert bool(strategy.remarks) == (strategy.selection == "batchwise")
    before = network().double().backbone.state_dict()
    after = learner.network.backbone.vit.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_replay_is_added_without_a_class_mask(make_learner, make_stream, train) -> None:
    stream, memory = make_stream(2), {"memory": "reservoir", "memory_size": 4, "batch_size": 3, "strength": 0.5}
    learner = make_learner(network())
    train(learner, strategy := l2p("l2p_paper", rehearsal=ER(**memory)), stream, 2)
    batch = learner.batch(stream.experiences[1].train.raw[:4], stream.experiences[1].train.y[:4], 1)
    learner.reseed("step", 9)
    output = strategy.loss(learner, batch)
    learner.reseed("step", 9)
    raw, y, _ = strategy.rehearsal.memory.draw(3, learner.rng)
    logits = learner.network(learner.view(raw, None))
    expected = 0.5 * (F.cross_entropy(logits, y) + strategy.pull * strategy.pool.distance)
    torch.testing.assert_close(output.parts["replay"], expected)


def test_random_choice_is_of_different_prompts_and_agrees_between_looks(make_learner, make_stream) -> None:
    stream, learner = make_stream(2), make_learner(network())
    strategy = l2p("l2p_paper", selection="random")
    strategy.prepare(learner, stream)
    learner.reseed("step", 0)
    strategy.pool.train()
    ids = strategy.pool.draw(200)
    assert all(len(set(row)) == 3 for row in ids.tolist()) and strategy.pool.draw(200).tolist() != ids.tolist()
    assert set(ids.flatten().tolist()) == set(range(5))
    data = stream.experiences[0].train
    assert torch.equal(read(learner, data, 12)[1], read(learner, data, 12)[1])


@pytest.mark.parametrize("random_views", [False, True])
def test_cached_queries_equal_those_computed_again(make_learner, make_stream, random_views: bool) -> None:
    stream, learner = make_stream(2), make_learner(network())
    if random_views:
        torch.set_default_dtype(torch.float64)
        learner.view = CropFlip(mean=0.0, std=1.0, padding=1, flip=True)
    plain, asked, answered = learner.view, [], {}

    @torch.no_grad()
    def ask(x: Tensor) -> Tensor:
        asked.append(len(x))
        found = class_token(learner.network.backbone, x)
        answered.update({image.numpy().tobytes(): answer for image, answer in zip(x, found)})
        return found

    once = Once(ask, learner, stream, 6)
    assert sum(asked) == (24 if random_views else 48)  # tests, and what is trained on where its views stay the same
    asked.clear()
    for data in (e.train for e in stream.experiences):
        for raw in data.raw.split(6):
            found = once(learner.view(raw, None))
            assert not asked and all(torch.equal(q, answered[x.numpy().tobytes()]) for q, x in zip(found, plain(raw, None)))
            torch.testing.assert_close(found, class_token(learner.network.backbone, plain(raw, None)).detach(), rtol=1e-12, atol=1e-12)
    data, rng = stream.experiences[0].train, torch.Generator().manual_seed(0)
    drawn = once(learner.view(data.raw[:6], rng))
    x = learner.view(data.raw[:6], None)
    assert torch.equal(drawn, once(x)) != random_views
    torch.testing.assert_close(once(x.clone()), once(x), rtol=1e-12, atol=1e-12)
    assert asked == [6] * (1 + random_views)  # another tensor is another question
    unknown = Examples(255 - data.raw[:6], data.y[:6])
    asked.clear()
    found = once(learner.view(unknown.raw, None))
    assert asked == [6] and bool(found.isfinite().all())


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        (["strategy=l2p_paper"], 46_080),  # 2112.08654: 10 x 5 x 768 + 10 x 768
        (["strategy=l2p_torch"], 46_080),
        (["strategy=l2p_jax"], 84_480),  # 10 x 10 x 768 + 10 x 768
        (["strategy=l2p_paper", "strategy.size=20"], 92_160),  # 2112.08654, 5-datasets
    ],
)
def test_frozen_weights_have_no_graph_and_the_paper_count_of_parameters(preset: list[str], count: int) -> None:
    import timm

    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        s = compose("config", overrides=["model=vit_b_orig_in21k", *preset]).strategy
    with torch.device("meta"):
        vit, head = timm.create_model("vit_base_patch16_224", num_classes=0), nn.Linear(768, 100)
        pool = Pool(size=s.size, length=s.length, top=s.top, dim=768, selection=s.selection, vote=s.vote, penalty=s.frequency_penalty)
    prompted = PromptedViT(vit, pool, lambda x: torch.zeros(2, 768, device="meta"), False)
    learned = [p.numel() for p in Network(prompted, head).parameters() if p.requires_grad]
    assert sum(learned) == count + 76_900  # a head of 768 x 100 + 100
    assert not any(p.requires_grad for p in vit.parameters()) and not prompted.train().vit.training


def test_refusals(make_learner, make_network, make_stream, error) -> None:
    stream = make_stream(2)
    assert "strategy.top=6 is more than the strategy.size=5" in error(lambda: l2p("l2p_paper", top=6))
    text = error(lambda: l2p("mask", size=5).prepare(make_learner(network()), stream))
    assert "runs past the pool" in text and "strategy.size=6" in text
    hidden = replace(stream, experiences=tuple(replace(e, announced=False) for e in stream.experiences))
    for name in ("mask", "penalty"):
        assert "needs task boundaries" in error(lambda: l2p(name).prepare(make_learner(network()), hidden))  # noqa: B023
    assert "prompt_mask=true" in error(lambda: l2p("l2p_paper", copy_prompts=True))
    assert "is no range" in error(lambda: l2p("l2p_paper", init=[1.0, 0.0]))
    assert "patch tokens" in error(lambda: l2p("l2p_paper").prepare(make_learner(make_network()), stream))
    bare = VisionTransformer(img_size=3, patch_size=1, in_chans=1, num_classes=0, embed_dim=8, depth=1, num_heads=2)
    bare.cls_token = None
    text = error(lambda: l2p("l2p_paper").prepare(make_learner(Network(bare, nn.Linear(8, 4))), stream))
    assert "has no cls_token" in text and "model=vit_nano" in text
