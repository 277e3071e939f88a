"""Probes of features without a head: nearest neighbours and a linear read-out against scikit-learn, other data sets, pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from cl_bench.core.learner import Network
from cl_bench.core.types import Examples, Experience
from cl_bench.data.resident import in_memory
from cl_bench.probes.carry import FineTune, OutOfDistribution
from cl_bench.probes.collapse import Collapse
from cl_bench.probes.knn import KNN, Linear, Logistic, votes
from cl_bench.probes.moment import Held, Moment
from cl_bench.probes.pictures import FeatureMaps, Landscape
from cl_bench.scenarios.few import Few

K = {"temperature": 0.1, "chunk": 7}


def clouds(count: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng, centre = torch.Generator().manual_seed(seed), torch.randn(classes, 6, generator=torch.Generator().manual_seed(0))
    y = torch.randint(0, classes, (count,), generator=rng)
    return centre[y] + 1.2 * torch.randn(count, 6, generator=rng), y


def test_knn_is_scikit_learns() -> None:
    (bank, labels), (queries, y) = clouds(300, 5, 1), clouds(90, 5, 2)
    theirs = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1))
    theirs.fit(bank.double().numpy(), labels.numpy())
    ours = votes(queries.double(), nn.functional.normalize(bank.double()), labels, 5, 20, 0.1, 7)
    share = ours / ours.sum(1, keepdim=True)
    assert np.abs(share.numpy() - theirs.predict_proba(queries.double().numpy())).max() < 1e-9
    assert (ours.argmax(1).numpy() == theirs.predict(queries.double().numpy())).all() and (ours.argmax(1) == y).double().mean() > 0.5


def test_linear_is_scikit_learns() -> None:
    (x, y), (queries, _) = clouds(300, 4, 1), clouds(50, 4, 2)
    x, queries = x.double(), queries.double()
    ours = Logistic(x, y, 6, 0.01, 200)(queries)
    scaled = ((x - x.mean(0)) / x.std(0)).numpy(), ((queries - x.mean(0)) / x.std(0)).numpy()
    theirs = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=2000).fit(scaled[0], y.numpy())
    assert np.abs(ours.softmax(1)[:, :4].numpy() - theirs.predict_proba(scaled[1])).max() < 1e-4
    assert (ours[:, 4:] == -torch.inf).all()  # classes that were never there


@pytest.fixture
def moment(make_learner, make_stream, tmp_path):
    """moment(columns): after the last of three tasks, as the loop makes it."""

    def make(columns=None) -> Moment:
        learner, stream = make_learner(Network(nn.Sequential(nn.Flatten()), nn.Linear(9, 4))), make_stream()
        learner.network.columns = columns or {}
        with torch.inference_mode():
            held = [
                Held(on, t.classes, i, t.data.y, {"": learner.network.features(t.data.raw.double() / 255)}, t.task)
                for i, (on, t) in enumerate(stream.tests.items())
            ]
        return Moment(2, 0, tmp_path, held, learner, 5, True)

    return make


def rows(probe, moment, stream) -> dict[tuple[str, str], float]:
    probe.prepare(moment.learner, stream, {on: t.data for on, t in stream.tests.items()})
    return {(row["on"], row["metric"]): row["value"] for row in probe(moment)}


def test_banks_are_the_tasks_own_or_everyones(moment, make_stream) -> None:
    """The tests are the training images here: the nearest one is the image itself."""
    found = rows(KNN(k=1, k_rule="fixed", **K), moment(), make_stream())
    assert set(found.values()) == {1.0} and {m for _, m in found} == {"knn_task", "knn_all"} and len(found) == 6
    half = moment()
    label = [Held(h.on, h.classes, h.learned, h.y.flip(0), h.features, h.task) for h in half.held]
    told = rows(KNN(k=12, k_rule="fixed", **K), replace(half, held=label), make_stream())
    assert all(0 <= v <= 1 for v in told.values()) and told != found
    read = rows(Linear(decay=1e-4, iterations=100), moment(), make_stream())
    assert read["task0", "linear_task"] >= read["task0", "linear_all"] > 0.3


def test_columns_are_told_apart(moment, make_stream) -> None:
    """Where tasks have features of their own, the told task reads its own part: three numbers of nine."""
    plain, parted = moment(), moment({0: 0, 1: 1, 2: 2})
    a, b = (rows(KNN(k=1, k_rule="fixed", **K), m, make_stream()) for m in (plain, parted))
    assert a["task1", "knn_all"] == b["task1", "knn_all"]
    assert parted.learner.network.own(torch.zeros(2, 9), 1).shape == (2, 3)


@pytest.mark.parametrize(("rule", "count"), [("cap", 12), ("tasks", 3), ("fixed", 5)])
def test_how_many_neighbours(moment, make_stream, monkeypatch, rule, count) -> None:
    asked = []

    def spy(queries, bank, labels, num_classes, k, *rest):
        asked.append(k)
        return torch.zeros(len(queries), num_classes)

    monkeypatch.setattr("cl_bench.probes.knn.votes", spy)
    rows(KNN(k=5 if rule == "fixed" else 200, k_rule=rule, **K), moment(), make_stream())
    assert asked[0] == count


def test_what_knn_refuses(error, make_learner, make_network, make_stream) -> None:
    learner, stream = make_learner(make_network()), make_stream()
    assert "probe.knn.k=13 is above the 12 training images of task0" in error(
        lambda: KNN(k=13, k_rule="fixed", **K).prepare(learner, stream, {})
    )
    hidden = replace(stream, experiences=tuple(replace(e, announced=False) for e in stream.experiences))
    assert "tells none" in error(lambda: KNN(k=1, k_rule="fixed", **K).prepare(learner, hidden, {}))


def other(channels: int = 1):
    raw = torch.randint(0, 256, (40, channels, 3, 3), generator=torch.Generator().manual_seed(1)).byte()
    data = Examples(raw, (raw.float().mean((1, 2, 3)) > 127).long())
    return lambda: in_memory("other", data, data, 2)


def test_features_on_other_data_sets(moment, make_stream, error) -> None:
    stream, made = make_stream(), moment()
    before = [p.clone() for p in made.learner.parameters]
    found = rows(OutOfDistribution(datasets={"other": other()}, k=1, **K), made, stream)
    assert found == {("all", "ood_other"): 1.0}
    tune = FineTune(datasets={"other": other()}, epochs=40, batch_size=8, lr=0.3, momentum=0.9)
    torch.manual_seed(3)
    tuned, after = rows(tune, made, stream), torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(3)) and rows(tune, made, stream) == tuned  # draws of its own
    assert tuned["all", "finetune_other"] > 0.8
    assert all(torch.equal(a, b) for a, b in zip(before, made.learner.parameters, strict=True))
    assert rows(tune, replace(made, last=False), stream) == {}
    few = OutOfDistribution(datasets={"other": other()}, k=41, **K)
    assert "probe.ood.k=41 is above the 40 training images of other" in error(lambda: few.prepare(made.learner, stream, {}))
    colour = OutOfDistribution(datasets={"other": other(3)}, k=1, **K)
    assert "colours cannot be left out" in error(lambda: colour.prepare(made.learner, stream, {}))


def test_pictures_and_spread(make_learner, make_stream, tmp_path, error) -> None:
    backbone = nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten())
    learner, stream = make_learner(Network(backbone, nn.Linear(16, 4))), make_stream()
    held = [Held("task0", (0, 1), 0, stream.experiences[0].train.y, {"": torch.randn(12, 16)})]
    made = Moment(2, 0, tmp_path, held, learner, 5, True)
    assert rows(FeatureMaps(layer="1", images=3), made, stream) == {} and (tmp_path / "probes/maps_after2.png").stat().st_size > 1000
    weights = [p.clone() for p in learner.parameters]
    with torch.inference_mode():
        probe = Landscape(points=3, reach=0.5, images=6)
        found = rows(probe, made, stream)
    assert set(found) == {("all", "landscape_rise")} and len((tmp_path / "probes/landscape_after2.csv").read_text().splitlines()) == 10
    assert all(torch.equal(a, b) for a, b in zip(weights, learner.parameters, strict=True))
    middle = probe.losses(learner, 0)[1, 1]
    learner.network.backbone[0].weight.data.mul_(3)
    assert not torch.equal(probe.losses(learner, 0)[1, 1], middle)  # the middle is the weights themselves
    spread = rows(Collapse(), made, stream)
    assert spread["task0", "feature_spread"] == pytest.approx(1, abs=0.2) and 5 < spread["task0", "effective_rank"] <= 11.5
    assert "has no maps" in error(lambda: FeatureMaps(layer="2", images=3).prepare(learner, stream, {"a": stream.experiences[0].train}))
    assert "no module" in error(lambda: FeatureMaps(layer="9", images=3).prepare(learner, stream, {"a": stream.experiences[0].train}))


def test_few_examples_are_nested(error) -> None:
    raw = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1)
    dataset = in_memory("numbers", Examples(raw, torch.arange(60) % 4), Examples(raw, torch.arange(60) % 4), 4)
    how = {"tasks": 2, "order": "natural", "order_seed": 3, "valid_fraction": 0.0, "announced": True}
    few, more = (Few(images=n, **how)(dataset).experiences for n in (6, 20))
    for a, b in zip(few, more, strict=True):
        assert isinstance(a, Experience) and len(a.train) == 6 and {*a.train.raw.flatten().tolist()} < {*b.train.raw.flatten().tolist()}
    assert "scenario.images=31 is more than the 30 of task0" in error(lambda: Few(images=31, **how)(dataset))
