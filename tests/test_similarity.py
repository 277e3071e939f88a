"""Similarities of features beside slow twins written from the formulas, and what must hold for all of them."""

from __future__ import annotations

import pytest
import torch

from cl_bench.probes import similarity
from cl_bench.probes.similarity import cka, overlap, overlaps, subspace_similarity


def draw(n: int, p: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, p, generator=rng, dtype=torch.float64) @ torch.diag(torch.rand(p, generator=rng, dtype=torch.float64) + 0.1)


def rotation(p: int) -> torch.Tensor:
    return torch.linalg.qr(draw(p, p, 9)).Q


def slow_overlap(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Trace form of the two second moments."""
    c, d = (sum(torch.outer(row, row) for row in z) / len(z) for z in (x, y))
    return torch.trace(c.T @ d) / (torch.trace(c.T @ c) * torch.trace(d.T @ d)) ** 0.5


def slow_cka(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """HSIC of linear kernels through the centring matrix."""
    n = len(x)
    h = torch.eye(n, dtype=x.dtype) - 1 / n
    k, m = h @ x @ x.T @ h, h @ y @ y.T @ h
    return torch.trace(k @ m) / (torch.trace(k @ k) * torch.trace(m @ m)) ** 0.5


def slow_subspace(x: torch.Tensor, y: torch.Tensor, k: int) -> torch.Tensor:
    """From the singular value decompositions of the centred features."""
    v, u = (torch.linalg.svd(z - z.mean(0)).Vh[:k].T for z in (x, y))
    return ((v.T @ u) ** 2).sum() / k


@pytest.mark.parametrize(("n", "p"), [(7, 4), (4, 9), (6, 6)])
def test_twins(n: int, p: int) -> None:
    x, y = draw(n, p, 1), draw(n, p, 2)
    torch.testing.assert_close(overlap(x, y[:-1]), slow_overlap(x, y[:-1]), rtol=0, atol=1e-12)
    torch.testing.assert_close(cka(x, y), slow_cka(x, y), rtol=0, atol=1e-12)
    torch.testing.assert_close(cka(x, y[:, 1:]), slow_cka(x, y[:, 1:]), rtol=0, atol=1e-12)
    for k in (1, 3):
        torch.testing.assert_close(subspace_similarity(x, y, k), slow_subspace(x, y, k), rtol=0, atol=1e-9)


def test_both_forms_of_every_pair_agree_in_parts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [draw(n, 6, n) for n in (3, 5, 9)]
    pairs = torch.stack([torch.stack([slow_overlap(x, y) for y in sets]) for x in sets])
    for at_once in (1 << 24, 40):  # 40: two rows of the three second moments at a time
        monkeypatch.setattr(similarity, "AT_ONCE", at_once)
        kernels, moments = similarity._by_kernels(sets), similarity._by_moments(sets)
        torch.testing.assert_close(kernels, moments, rtol=1e-12, atol=0)
    torch.testing.assert_close(overlaps(sets), pairs, rtol=0, atol=1e-12)
    torch.testing.assert_close(overlaps([x.repeat(9, 1) for x in sets]), pairs, rtol=0, atol=1e-12)  # more rows than width: moments


@pytest.mark.parametrize("measure", [overlap, cka, lambda x, y: subspace_similarity(x, y, 3)], ids=["overlap", "cka", "subspace"])
@pytest.mark.parametrize(("n", "p"), [(40, 6), (5, 12)])
def test_self_is_one_and_scale_and_rotation_change_nothing(measure, n: int, p: int) -> None:
    x, y, turn = draw(n, p, 3), draw(n, p, 4), rotation(p)
    assert float(measure(x, x)) == pytest.approx(1, abs=1e-9)
    assert 0 < float(measure(x, y)) < 0.999
    assert float(measure(3 * x @ turn, 0.2 * y @ turn)) == pytest.approx(float(measure(x, y)), abs=1e-9)


def test_cka_is_blind_to_a_turn_of_one_side_and_to_shifts_and_the_others_are_not() -> None:
    x, y = draw(9, 5, 5), draw(9, 5, 6)
    assert float(cka(x, y @ rotation(5) + 2)) == pytest.approx(float(cka(x, y)), abs=1e-12)
    assert abs(float(overlap(x, y @ rotation(5)) - overlap(x, y))) > 0.01
    assert abs(float(subspace_similarity(x, y @ rotation(5), 2) - subspace_similarity(x, y, 2))) > 0.01
    assert float(overlap(x + 50, y + 50)) > 0.99  # a shared mean takes it to 1: centre first


def test_disjoint_supports_share_nothing() -> None:
    x, y = torch.zeros(2, 20, 8, dtype=torch.float64)
    x[:, :4], y[:, 4:] = draw(20, 4, 7), draw(20, 4, 8)
    assert float(overlap(x, y)) == 0 and float(subspace_similarity(x, y, 4)) == pytest.approx(0, abs=1e-20)
    q = torch.linalg.qr(torch.cat([torch.ones(20, 1, dtype=torch.float64), draw(20, 8, 9)], 1)).Q[:, 1:]  # uncorrelated, centred
    assert float(cka(q[:, :4], q[:, 4:])) == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize(("p", "measured"), [(192, 0.836), (384, 0.722), (768, 0.565)])
def test_random_features_score_as_the_sheet_measured(p: int, measured: float) -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1000, p, generator=rng)
    assert float(overlap(x, y)) == pytest.approx(1000 / (1000 + p), abs=0.01)
    assert float(overlap(x, y)) == pytest.approx(measured, abs=0.01)
