"""The loop whose curves are laid beside other libraries' gives a bare loop's, without any of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ours import BATCH, RATE, make_network, make_stream, orders, our_losses
from torch.nn import functional as F

from cl_bench.strategies.simple import Sequential


def test_the_loop_gives_a_bare_loops_curve(make_learner: Callable, tmp_path: Path) -> None:
    stream, network, losses = make_stream(), make_network(), []
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9)
    for e in stream.experiences:
        for index in orders(e.index)[0].split(BATCH):
            loss = F.cross_entropy(network(e.train.raw[index].double() / 255), e.train.y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    ours = our_losses(make_learner(make_network()), Sequential(), stream, tmp_path)
    assert ours.tolist() == pytest.approx(losses, rel=1e-9) and np.ptp(ours) > 1
