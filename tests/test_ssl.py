"""Objectives of two views against slow twins, and LUMP against tensors mixed by hand."""

from __future__ import annotations

import random

import pytest
import torch
from test_conf import composed
from torch import nn

from cl_bench.core.learner import Network
from cl_bench.core.types import Batch, Output
from cl_bench.data.contrastive import Augmented
from cl_bench.objectives.barlow_twins import BarlowTwins
from cl_bench.objectives.pairs import effective_rank, spread
from cl_bench.objectives.projected import Projected
from cl_bench.objectives.simsiam import SimSiam
from cl_bench.strategies.lump import LUMP
from cl_bench.strategies.si_backbone import BackboneSI

LOW = {"least_spread": 0.05, "least_rank": 1.5}


def simsiam() -> SimSiam:
    return SimSiam(width=6, layers=2, predictor_width=3, **LOW)


def barlow() -> BarlowTwins:
    return BarlowTwins(width=6, layers=2, off_diagonal=0.005, **LOW)


@pytest.fixture
def learner(make_learner):
    """learner(objective): on 3 x 3 pictures, five features; views are noise on the picture."""

    def make(objective):
        torch.manual_seed(1)
        network = Network(nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.ReLU()), nn.Identity())
        network.head = objective.head(5, 4)
        made = make_learner(network)
        made.objective = objective
        made.view = lambda raw, rng: raw / 255 + (0 if rng is None else 0.3 * torch.randn(raw.shape, generator=rng, dtype=torch.float64))
        return made

    return make


def batch_norm(x: torch.Tensor, layer: nn.BatchNorm1d) -> torch.Tensor:
    columns = []
    for j in range(x.shape[1]):
        mean = sum(x[:, j]) / len(x)
        variance = sum((v - mean) ** 2 for v in x[:, j]) / len(x)
        columns.append((x[:, j] - mean) / torch.sqrt(variance + layer.eps) * layer.weight[j] + layer.bias[j])
    return torch.stack(columns, 1)


def through(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        if isinstance(layer, nn.Linear):
            x = x @ layer.weight.T + layer.bias
        else:
            x = batch_norm(x, layer) if isinstance(layer, nn.BatchNorm1d) else x.clamp(min=0)
    return x


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def twin(objective, network, views) -> torch.Tensor:
    """By example and by dimension, from the papers."""
    h = [through(network.backbone[1:], view.flatten(1)) for view in views]
    z1, z2 = (through(network.head.projector, x) for x in h)
    if isinstance(objective, SimSiam):
        p1, p2 = (through(network.head.predictor, z) for z in (z1, z2))
        pairs = [cosine(p1[i], z2[i].detach()) / 2 + cosine(p2[i], z1[i].detach()) / 2 for i in range(len(z1))]
        return -sum(pairs) / len(pairs)
    n, total = len(z1), torch.zeros((), dtype=torch.float64)
    for i in range(6):
        for j in range(6):
            a, b = z1[:, i] - z1[:, i].mean(), z2[:, j] - z2[:, j].mean()
            deviations = (sum(a * a) / (n - 1)).sqrt() * (sum(b * b) / (n - 1)).sqrt()
            c = sum(a * b) / n / deviations
            total = total + ((1 - c) ** 2 if i == j else 0.005 * c**2)
    return total


@pytest.mark.parametrize("make", [simsiam, barlow])
def test_losses_and_gradients_are_the_papers(learner, make_stream, make) -> None:
    objective = make()
    made, data = learner(objective), make_stream().experiences[0].train
    batch = Batch(data.raw[:8], data.y[:8], 0)
    made.view_rng.manual_seed(3)
    output = made.teach(batch)
    assert len(output.views) == 2 and not torch.equal(*output.views)
    output.loss.backward()
    found = [p.grad.clone() for p in made.parameters]
    expected = twin(objective, made.network, output.views)
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-9)
    for grad, wanted in zip(found, torch.autograd.grad(expected, made.parameters), strict=True):
        assert torch.allclose(grad, wanted, atol=1e-9)
    assert torch.allclose(output.outputs, made.network.features(output.views[0]))
    assert torch.allclose(made.objective.outputs(made.network, output.views[0]), output.outputs)
    assert objective.output_shape(make_stream()) == (5,)


def test_the_target_is_stopped() -> None:
    """The projections' own gradient comes through the predictions alone."""
    p = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    from cl_bench.objectives.simsiam import away

    away(p, z).backward()
    assert z.grad is None and p.grad.abs().sum() > 0


def test_collapse_is_told(error) -> None:
    objective, rng = simsiam(), torch.Generator().manual_seed(0)
    fine = torch.randn(64, 8, generator=rng)
    line = torch.randn(64, 1, generator=rng) @ torch.randn(1, 8, generator=rng)
    point = torch.ones(64, 8) + 1e-4 * fine
    say = {name: objective.warning(Output(fine.sum(), x)) for name, x in (("fine", fine), ("line", line), ("point", point))}
    assert say["fine"] == "" and "collapse: effective rank 1 is below 1.5" in say["line"] and "spread" in say["point"]
    assert effective_rank(torch.eye(16) * 3).item() == pytest.approx(15, rel=0.01)  # one direction is the mean's
    assert spread(fine).item() == pytest.approx(1, abs=0.1)
    assert "gives no logits" in error(lambda: objective.targets(None))


def test_a_projector_stands_before_the_logits() -> None:
    head = Projected(loss_over="all", width=6, layers=2).head(5, 4)
    assert head(torch.randn(3, 5)).shape == (3, 4)
    assert [type(m).__name__ for m in head[0]] == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]


LIGHT = {
    **{"size": None, "crop": "resized", "scale": [0.5, 1.0], "ratio": [0.8, 1.2], "interpolation": "bicubic", "padding": 0, "flip": 0.5},
    **{"jitter": dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0), "jitter_chance": 0.0, "grey_chance": 0.0},
    **{"blur": [0.1, 2.0], "blur_kernel": 3, "blur_chance": 0.0, "centre": 1.0, "mean": 0.0, "std": 1.0},
}


def light(raw, rng):
    """Told apart from the run's view by its sign."""
    return -raw / 255 - torch.rand(len(raw), 1, 1, 1, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("buffer_view", ["stored", "ssl"])
def test_lump_mixes_what_the_paper_mixes(learner, make_stream, monkeypatch, buffer_view) -> None:
    made, stream = learner(simsiam()), make_stream()
    lump = LUMP(memory_size=4, alpha=0.4, buffer_view=buffer_view, light=light)
    lump.prepare(made, stream)
    data, seen = stream.experiences[0].train, []
    monkeypatch.setattr(made, "judge", lambda views, batch: seen.append(views) or Output(torch.zeros(()), torch.zeros(4, 5), views=views))
    first = Batch(data.raw[:4], data.y[:4], 0)
    made.reseed("step", 0, 0)
    output = lump.loss(made, first)
    assert len(seen) == 1 and all(torch.equal(a, b) for a, b in zip(seen[0], output.views))  # nothing to mix with
    lump.after_step(made, first, output)
    stored = [v.clone() for v in output.views]
    made.reseed("step", 0, 1)
    lump.loss(made, Batch(data.raw[4:8], data.y[4:8], 0))
    made.reseed("step", 0, 1)  # the same draws by hand, in the same order
    views = made.views(data.raw[4:8])
    order = torch.randperm(4, generator=made.rng)
    lam = random.Random(int(torch.randint(1 << 62, (), generator=made.rng))).betavariate(0.4, 0.4)
    if buffer_view == "stored":
        old = [light(data.raw[:4][order], made.view_rng), stored[1][order].float()]
    else:
        old = made.views(data.raw[:4][order])
    for found, new, then in zip(seen[1], views, old, strict=True):
        assert torch.allclose(found, lam * new + (1 - lam) * then, atol=1e-6)


def test_lump_mixes_the_losses_of_labels_too(make_learner, make_network, make_stream) -> None:
    """lam of the new labels' cross-entropy and 1 - lam of the old ones', on the mixed images (1710.09412)."""
    made, stream = make_learner(make_network()), make_stream()
    lump = LUMP(memory_size=4, alpha=5.0, buffer_view="ssl", light=light)
    lump.prepare(made, stream)
    data = stream.experiences[0].train
    lump.after_step(made, Batch(data.raw[:4], data.y[:4], 0), Output(torch.zeros(()), torch.zeros(4, 4), views=[]))
    made.reseed("step", 0, 1)
    output = lump.loss(made, Batch(data.raw[4:8], data.y[4:8], 0))
    made.reseed("step", 0, 1)
    order = torch.randperm(4, generator=made.rng)
    lam = random.Random(int(torch.randint(1 << 62, (), generator=made.rng))).betavariate(5.0, 5.0)
    logits = made.network((lam * data.raw[4:8].double() + (1 - lam) * data.raw[:4][order]) / 255)
    expected = 0.0
    for row, new, old in zip(logits, data.y[4:8], data.y[:4][order], strict=True):
        log = row - row.exp().sum().log()
        expected -= (lam * log[new] + (1 - lam) * log[old]) / 4
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-9) and 0.1 < lam < 0.9


def test_remembered_images_are_on_the_scale_of_the_runs_view() -> None:
    """Of every preset of the paper, and where the view is of another kind."""
    for line in (["experiment=ucl/cifar10"], ["experiment=ucl/offline"], ["view=centred"], ["view=plain"]):
        for strategy in ("lump", "der_light"):
            config = composed(*line, f"strategy={strategy}")
            light, view = config["strategy"]["light"], config["view"]
            assert (light["mean"], light["std"]) == (view["mean"], view["std"]) and light["size"] == view.get("size")
            assert light["scale"] == [0.08, 1.0] and light["jitter_chance"] == 0 and light["interpolation"] == "bicubic"


def test_lump_refuses_what_cannot_be_mixed(learner, make_stream, error) -> None:
    wide = Augmented(**{**LIGHT, "size": 6})
    made = learner(simsiam())
    assert "strategy.light.size" in error(
        lambda: LUMP(memory_size=4, alpha=0.4, buffer_view="stored", light=wide).prepare(made, make_stream())
    )


def test_si_of_the_backbone(learner, make_stream, train) -> None:
    """Penalty and path know the backbone alone; the first code's variant pushes away, from the last task's Omega alone."""
    how = {"strength": 2.0, "damping": 0.1, "gradient": "task", "cut": "sum", "cap": None}
    found = {}
    for variant in ("correct", "ucl_2021"):
        made, si = learner(simsiam()), BackboneSI(**how, variant=variant)
        train(made, si, make_stream(), 3)
        found[variant] = si
        assert sum(p.numel() for p in si.theta) == 9 * 5 + 5 == len(si.importance)
        new = si.importance
        assert torch.allclose(si.penalty.weight, (4 if variant == "correct" else -4) * new)
    one = learner(simsiam())
    alone = BackboneSI(**how, variant="correct")
    train(one, alone, make_stream(tasks=1), 3)
    again = BackboneSI(**how, variant="ucl_2021")
    train(learner(simsiam()), again, make_stream(tasks=1), 3)
    assert torch.equal(alone.importance, again.importance) and not torch.equal(found["correct"].importance, found["ucl_2021"].importance)
