"""Compose adds the terms of its parts and refuses what does more."""

from __future__ import annotations

import pytest
import torch

from cl_bench.core.errors import ConfigError
from cl_bench.strategies.compose import Compose
from cl_bench.strategies.replay import ER
from cl_bench.strategies.simple import Joint


def test_compose_adds_both_terms(make_learner, make_network, make_stream, train, ewc) -> None:
    stream = make_stream(2)
    learner, parts = make_learner(make_network()), {"er": ER(memory="reservoir", memory_size=6, batch_size=8, strength=1.0), "ewc": ewc()}
    both = Compose(parts=parts)
    train(learner, both, stream, steps=3)
    with torch.no_grad():
        learner.parameters[0].add_(0.1)
    e = stream.experiences[1]
    batch = learner.batch(e.train.raw, e.train.y, 1)
    learner.reseed("step", 9)
    output = both.loss(learner, batch)
    learner.reseed("step", 9)
    alone = learner.teach(batch)
    apart = {f"{n}.{name}": value for n, part in parts.items() for name, value in part.terms(learner, batch, alone).items()}
    assert set(output.parts) == {"er.replay", "ewc.ewc"} == set(apart)
    assert all(torch.equal(output.parts[name], value) and bool(value > 0) for name, value in apart.items())
    torch.testing.assert_close(output.loss, alone.loss + apart["er.replay"] + apart["ewc.ewc"], rtol=1e-12, atol=0)
    fresh = Compose(parts={"er": ER(memory="reservoir", memory_size=6, batch_size=8, strength=1.0), "ewc": ewc()})
    fresh.prepare(learner, stream)
    fresh.load_state_dict(both.state_dict())
    learner.reseed("step", 9)
    assert torch.equal(fresh.loss(learner, batch).loss, output.loss)


def test_compose_refuses_what_does_more_than_add_terms(ewc) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.parts\.all \(Joint\)"):
        Compose(parts={"all": Joint(), "ewc": ewc()})


def test_compose_adds_two_terms_of_one_name(make_learner, make_network, make_stream, train, ewc) -> None:
    """Two halves of EWC are the whole of it."""
    halves = Compose(parts={"a": ewc(strength=12.0), "b": ewc(strength=18.0)})
    for ours, theirs in zip(*(train(make_learner(make_network()), s, make_stream(2), steps=5) for s in (halves, ewc())), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_compose_names_settings_where_they_stand(make_learner, make_network, make_stream) -> None:
    both = Compose(parts={"er": ER(memory="balanced", memory_size=1, batch_size=8, strength=1.0)})
    with pytest.raises(ConfigError, match=r"^strategy\.parts\.er\.memory_size=1 is fewer"):
        both.prepare(make_learner(make_network()), make_stream(2))
