"""How alike two sets of features are: trace overlap, linear CKA, subspace similarity. Tensors in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROUNDING = 1e-6  # of float32 features, relative: less does not tell examples apart
AT_ONCE = 1 << 24  # numbers of second moments held at a time; memory only


def overlap(x: Tensor, y: Tensor) -> Tensor:
    """<C_x, C_y>_F / (|C_x|_F |C_y|_F), C_x = x^T x / n, of x [N, D] and y [M, D] as they are: centre them first.

    1 for equal shapes, 0 for disjoint supports. Independent isotropic features of n examples each score about n / (n + D).
    """
    return overlaps([x, y])[0, 1]


def overlaps(sets: Sequence[Tensor]) -> Tensor:
    """Every overlap of K sets [N_i, D], [K, K], through kernels or second moments, whichever is less work."""
    count, width = sum(map(len, sets)), sets[0].shape[1]
    kernels = count * count <= count * width + len(sets) ** 2 * width
    gram = _by_kernels(sets) if kernels else _by_moments(sets)
    norms = gram.diagonal().sqrt()
    return gram / norms.outer(norms)


def _by_kernels(sets: Sequence[Tensor]) -> Tensor:
    """|x_i x_j^T|_F^2, which is <x_i^T x_i, x_j^T x_j>_F, [K, K]."""
    every = torch.cat(list(sets))
    counts = torch.tensor([len(x) for x in sets], device=every.device)
    member = torch.eye(len(sets), dtype=every.dtype, device=every.device).repeat_interleave(counts, 0)  # [N, K]
    return torch.stack([(x @ every.T).square().sum(0) @ member for x in sets])


def _by_moments(sets: Sequence[Tensor]) -> Tensor:
    """<x_i^T x_i, x_j^T x_j>_F, [K, K], some rows of the second moments at a time."""
    width = sets[0].shape[1]
    rows = max(1, AT_ONCE // (len(sets) * width))
    gram = sets[0].new_zeros(len(sets), len(sets))
    for begin in range(0, width, rows):
        part = torch.stack([(x[:, begin : begin + rows].T @ x).flatten() for x in sets])
        gram += part @ part.T
    return gram


def centred(x: Tensor) -> Tensor:
    """Less the mean over examples."""
    return x - x.mean(0)


def constant(x: Tensor) -> bool:
    """Whether all examples have the same features, as those of dead units: no similarity of what is centred is defined then."""
    return bool(centred(x).norm() <= ROUNDING * x.norm())


def cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear CKA (1905.00414): |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F), centred; x [N, D] and y [N, E] of the same N examples."""
    return overlap(centred(x).T, centred(y).T)


def subspace_similarity(x: Tensor, y: Tensor, k: int) -> Tensor:
    """|V_k^T U_k|_F^2 / k, the first k principal directions of each (2007.07400); of random subspaces it is k / D."""
    return (directions(x, k).T @ directions(y, k)).square().sum() / k


def directions(x: Tensor, k: int) -> Tensor:
    """First k principal directions of x [N, D] as columns, [D, k]."""
    x = centred(x)
    if len(x) >= x.shape[1]:
        return torch.linalg.eigh(x.T @ x).eigenvectors[:, -k:]
    return torch.linalg.qr(x.T @ torch.linalg.eigh(x @ x.T).eigenvectors[:, -k:]).Q
