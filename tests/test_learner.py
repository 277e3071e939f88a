"""The learner's optimizer: rates of backbone and head, and their schedule."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("rate", [1.0, 0.25, 0.0])
def test_backbone_rate_scales_the_step_of_the_backbone_alone(make_learner, make_network, make_stream, rate):
    learner, stream = make_learner(make_network(), rate=0.1), make_stream()
    learner.backbone_rate, learner.schedule, learner.step, learner.steps = rate, lambda step, steps, number: 0.5 * step / steps, 2, 4
    learner.new_optimizer()
    data = stream.experiences[0].train
    before = {n: p.detach().clone() for n, p in learner.network.named_parameters()}
    learner.teach(learner.batch(data.raw, data.y, 0)).loss.backward()
    gradients = {n: p.grad.clone() for n, p in learner.network.named_parameters()}
    learner.update()
    for name, after in learner.network.named_parameters():
        scale = 1.0 if name.startswith("head.") else rate
        assert (before[name] - 0.1 * 0.25 * scale * gradients[name] - after).abs().max() < 1e-12
