"""Every Fisher estimator against its slow obvious twin: one example, one class, one backward pass at a time."""

from __future__ import annotations

import pytest
import torch
from fisher_networks import BACKBONES, CLASSES, network
from torch import Tensor, nn

from cl_bench.core.learner import Learner, Network
from cl_bench.core.types import Examples, Experience
from cl_bench.models.timm_models import resnet, vit
from cl_bench.strategies.fisher import fisher

INDEX, OWN = 1, (2, 3)
ESTIMATORS = ("exact", "sample", "empirical", "batched", "legacy")
MASKS = {
    "all": None,
    "own": torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]], dtype=torch.bool),
    "seen": torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], dtype=torch.bool),
}


def task(count: int = 11) -> Experience:
    rng = torch.Generator().manual_seed(1)
    raw = torch.randint(0, 256, (count, 1, 8, 8), generator=rng).to(torch.uint8)
    return Experience(INDEX, "task1", Examples(raw, torch.randint(2, 4, (count,), generator=rng)), OWN)


# ---------------------------------------------------------------- the twins


def log_p(learner: Learner, raw: Tensor) -> Tensor:
    logits = learner.network(raw.double() / 255)
    if learner.masks is not None:
        logits = logits + torch.where(learner.masks[INDEX], 0.0, -torch.inf)
    return logits - logits.logsumexp(1, keepdim=True)


def squared(value: Tensor, learner: Learner) -> Tensor:
    grads = torch.autograd.grad(value, learner.parameters, retain_graph=True)
    return torch.cat([g.flatten() for g in grads]) ** 2


def slow(estimator: str, learner: Learner, data: Examples, order: Tensor, batch_size: int) -> Tensor:
    if estimator == "legacy":
        learner.network.train()
        batches = list(order.split(batch_size))
        if len(batches[-1]) == 1:  # joins its neighbour, for batch norm's sake
            batches[-2:] = [torch.cat(batches[-2:])]
        found = [log_p(learner, data.raw[b])[:, data.y[b]].flatten() for b in batches]
        return squared(torch.cat(found).mean(), learner)
    learner.network.eval()
    if estimator == "batched":
        means = [log_p(learner, data.raw[b])[range(len(b)), data.y[b]].mean() for b in order.split(batch_size)]
        return torch.stack([squared(m, learner) for m in means]).mean(0)
    total, draws = torch.zeros(sum(p.numel() for p in learner.parameters), dtype=torch.float64), []
    if estimator == "sample":
        draws = (
            torch.cat([torch.rand(len(b), 1, generator=learner.rng, dtype=torch.float64) for b in order.split(batch_size)])
            .flatten()
            .tolist()
        )
    for place, n in enumerate(order.tolist()):
        scores = log_p(learner, data.raw[n : n + 1])[0]
        p = scores.detach().exp()
        if estimator == "exact":
            for c in range(CLASSES):
                if p[c] > 0:
                    total += p[c] * squared(scores[c], learner)
        elif estimator == "empirical":
            total += squared(scores[data.y[n]], learner)
        else:
            c, reached = 0, float(p[0])
            while reached < draws[place]:
                c, reached = c + 1, reached + float(p[c + 1])
            total += squared(scores[c], learner)
    return total / len(order)


# ---------------------------------------------------------------- the tests


def both(make_learner, name: str, estimator: str, mask: str, freeze: bool = False) -> tuple[Tensor, Tensor, Learner]:
    results = []
    for function in (fisher, slow):
        net = network(name)
        if freeze:
            for parameter in list(net.parameters())[1::2]:
                parameter.requires_grad_(False)
        learner = make_learner(net, MASKS[mask])
        learner.reseed("after task", INDEX)
        data, order = task(), torch.tensor([9, 2, 0, 10, 4, 7, 1, 3, 5])
        results.append(function(estimator, learner, data if function is fisher else data.train, order, 4))
    return results[0], results[1], learner


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", BACKBONES)
def test_equals_the_slow_twin(make_learner, name: str, estimator: str, mask: str) -> None:
    fast, twin, learner = both(make_learner, name, estimator, mask)
    assert fast.shape == (sum(p.numel() for p in learner.parameters),) and fast.dtype == torch.float64
    assert (fast >= 0).all() and fast.sum() > 0
    torch.testing.assert_close(fast, twin, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("estimator", ["exact", "batched"])
@pytest.mark.parametrize("name", ["mlp_bn", "conv", "vit"])
def test_frozen_parameters_are_left_out(make_learner, name: str, estimator: str) -> None:
    fast, twin, _ = both(make_learner, name, estimator, "own", freeze=True)
    torch.testing.assert_close(fast, twin, rtol=1e-6, atol=1e-12)


def test_small_resnet_of_timm(make_learner) -> None:
    results = []
    for function in (fisher, slow):
        torch.manual_seed(0)
        backbone, dim = resnet(input_shape=(1, 8, 8), name="test_resnet", small_stem=False, pretrained=False)
        learner = make_learner(Network(backbone, nn.Linear(dim, CLASSES)), MASKS["own"])
        data = task(3)
        results.append(function("exact", learner, data if function is fisher else data.train, torch.arange(3), 2))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("estimator", ["exact", "empirical"])
def test_batch_size_changes_speed_only(make_learner, estimator: str, batch_size: int) -> None:
    learner = make_learner(network("conv"))
    order = torch.arange(11)
    one, other = (fisher(estimator, learner, task(), order, size) for size in (4, batch_size))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-15)


def test_sample_means_exact(make_learner) -> None:
    learner = make_learner(network("mlp"))
    learner.rng.manual_seed(0)
    exact = fisher("exact", learner, task(), torch.arange(11), 11)
    drawn = fisher("sample", learner, task(), torch.arange(11).repeat(3000), 3000)
    assert float((drawn - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", BACKBONES)
def test_leaves_the_network_as_it_was(make_learner, name: str, estimator: str, training: bool) -> None:
    learner = make_learner(network(name))
    learner.network.train(training)
    for module in learner.network.modules():  # train.batch_norm=frozen
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    before = {k: v.clone() for k, v in learner.network.state_dict().items()}
    modes = [m.training for m in learner.network.modules()]
    fisher(estimator, learner, task(), torch.arange(11), 4)
    for key, value in learner.network.state_dict().items():
        moves = estimator == "legacy" and key.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(value, before[key]) != moves, key
    assert [m.training for m in learner.network.modules()] == modes
    assert all(p.grad is None for p in learner.parameters)
    assert not any(m._forward_hooks or m._backward_hooks for m in learner.network.modules())


@pytest.mark.parametrize("room", [16, 300, 4096])
def test_tiles_of_any_size_give_the_same_squares(room, monkeypatch):
    from cl_bench.strategies import squares

    given, g = torch.randn(11, 3, 5), torch.randn(11, 3, 7)
    plain = torch.einsum("npi,npo->noi", given, g).square().sum(0)
    monkeypatch.setitem(squares.TILE_BYTES, "cpu", room)
    torch.testing.assert_close(squares._by_tiles(given, g, torch.square), plain)


def test_no_parameter_of_a_vit_takes_the_slow_path(make_learner, monkeypatch):
    from cl_bench.strategies import squares

    monkeypatch.setattr(squares, "vmap", None)
    torch.manual_seed(0)
    backbone, dim = vit(input_shape=(1, 8, 8), name="vit_tiny_patch16_224", patch_size=4, width=8, depth=1, heads=2, pretrained=False)
    learner = make_learner(Network(backbone, nn.Linear(dim, 2)))
    data = Examples(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    assert fisher("exact", learner, Experience(0, "task0", data, (0, 1)), torch.arange(3), 3).isfinite().all()
