"""Nearest class mean against loops over single examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cl_bench.probes.readout import read
from cl_bench.strategies.nmc import NMC


def twin(network, experiences, metric: str, raw) -> list[list[float | None]]:
    """For each picture and class what decides: minus half the squared distance, or the cosine; None of a class not seen."""
    w, b = (p.detach().double().numpy() for p in list(network.parameters())[:2])

    def feature(one) -> np.ndarray:
        return np.maximum(w @ one.double().flatten().numpy() / 255 + b, 0)

    found: dict[int, list[np.ndarray]] = {}
    for e in experiences:
        for one, y in zip(e.train.raw, e.train.y.tolist(), strict=True):
            found.setdefault(y, []).append(feature(one))
    scores = []
    for one in raw:
        f, row = feature(one), []
        for c in range(4):
            if c not in found:
                row.append(None)
                continue
            m = sum(found[c]) / len(found[c])
            row.append(-0.5 * sum((f - m) ** 2) if metric == "euclidean" else f @ m / np.sqrt(f @ f) / np.sqrt(m @ m))
        scores.append(row)
    return scores


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("tasks", [1, 2, 3])  # in the third, classes return
def test_nmc_equals_its_twin(make_learner, make_network, make_stream, train, tasks: int, metric: str) -> None:
    stream, learner = make_stream(tasks), make_learner(make_network())
    before = {n: t.clone() for n, t in learner.network.backbone.state_dict().items()}
    assert train(learner, NMC(metric=metric, batch_size=5), stream, steps=9) == []
    assert all(torch.equal(t, before[n]) for n, t in learner.network.backbone.backbone.state_dict().items())
    raw = make_stream(3).experiences[2].train
    ours = read(learner, raw, 7)[1]
    for logits, row in zip(ours, twin(make_network(), stream.experiences, metric, raw.raw), strict=True):
        seen = [c for c in range(4) if row[c] is not None]
        expected = torch.tensor([row[c] for c in seen], dtype=torch.float64)
        torch.testing.assert_close(logits[seen] - logits[seen[0]], expected - expected[0], rtol=1e-9, atol=1e-11)
        unseen = [c for c in range(4) if c not in seen]
        assert all(float(logits[c]) == pytest.approx(float(logits[seen].min()) - 1) for c in unseen)


def test_nmc_before_any_task_has_no_opinion(make_learner, make_network, make_stream) -> None:
    stream, learner = make_stream(), make_learner(make_network())
    NMC(metric="euclidean", batch_size=5).prepare(learner, stream)
    logits = read(learner, stream.experiences[0].train, 7)[1]
    assert torch.equal(logits, torch.full_like(logits, -1))
