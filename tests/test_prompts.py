"""Prompt histograms from probe to figure, and what the presets of L2P stand on: random crops, ImageNet-R, refusals."""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from test_l2p import l2p, network

from cl_bench.cli import check
from cl_bench.core.errors import ConfigError
from cl_bench.overrides import CONF
from cl_bench.probes.prompts import Prompts
from cl_bench.probes.readout import observe
from cl_bench.reports.prompts import histograms, last_counts


def looked(make_learner, stream, folder, strategy) -> tuple[Prompts, dict[tuple[str, str], float], object]:
    learner = make_learner(network())
    strategy.prepare(learner, stream)
    probe, held = Prompts(), {name: test.data for name, test in stream.tests.items()}
    probe.prepare(learner, stream, held)
    rows = list(observe(learner, stream, held, 1, {"prompts": probe}, future=False, batch_size=5, folder=folder))
    return probe, {(row["on"], row["metric"]): row["value"] for row in rows}, learner


def test_counts_entropy_and_overlap_by_hand(make_learner, make_stream, tmp_path) -> None:
    stream, strategy = make_stream(2), l2p("l2p_paper")
    _, found, _ = looked(make_learner, stream, tmp_path, strategy)
    table, shares = pd.read_csv(tmp_path / "probes" / "prompts_after1.csv", index_col="test"), []
    for name, test in stream.tests.items():
        count: Counter[int] = Counter()
        for raw in test.data.raw:
            q = network().double().backbone(raw[None].double() / 255)[0].detach()
            similar = [float(q @ k / (q.norm() * k.norm())) for k in strategy.pool.keys.detach()]
            count.update(sorted(range(5), key=lambda i: -similar[i])[:3])
        assert table.loc[name].tolist() == [count[i] for i in range(5)]
        shares.append([count[i] / 36 for i in range(5)])
        entropy = -sum(p * math.log(p) for p in shares[-1] if p)
        assert found[name, "prompt_entropy"] == pytest.approx(entropy)
    assert found["all", "prompt_overlap"] == pytest.approx(sum(map(min, *shares)))
    assert found["all", "prompts_used"] == sum(any(column) for column in zip(*shares))
    assert last_counts(tmp_path).to_numpy() == pytest.approx(torch.tensor(shares).numpy())
    figure = histograms(pd.DataFrame({"folder": [str(tmp_path)] * 2, "seed": [1, 0]}))
    assert figure is not None and [len(axes.patches) for axes in figure.axes] == [2 * 5, 2 * 5]
    assert [axes.get_title() for axes in figure.axes] == ["seed 0", "seed 1"]
    assert histograms(pd.DataFrame({"folder": [str(tmp_path / "none")], "seed": [0]})) is None


def test_collapsed_keys_are_told(make_learner, make_stream, tmp_path) -> None:
    strategy = l2p("l2p_paper")
    probe, _, learner = looked(make_learner, make_stream(2), tmp_path, strategy)
    with torch.no_grad():  # three keys are near to every query, two far from any
        q = network().double().backbone(torch.zeros(1, 1, 3, 3).double())[0]
        strategy.pool.keys.copy_(torch.stack([q, -q, q, -q, q]))
    stream, held = make_stream(2), {name: test.data for name, test in make_stream(2).tests.items()}
    found = {
        (row["on"], row["metric"]): row["value"]
        for row in observe(learner, stream, held, 1, {"prompts": probe}, future=False, batch_size=5, folder=tmp_path)
    }
    assert found["all", "prompts_used"] == 3 and found["all", "prompt_overlap"] == pytest.approx(1)
    assert probe.said == ["keys have collapsed: every image of every test takes the same 3 of 5 prompts"]


def test_a_strategy_without_choice_is_refused(make_learner, make_network, make_stream, error) -> None:
    stream = make_stream(2)
    held = {name: test.data for name, test in stream.tests.items()}
    assert "use strategy=l2p or dualprompt" in error(lambda: Prompts().prepare(make_learner(make_network()), stream.tests, held))


@pytest.mark.parametrize("line", ["look.batch_size=1", "strategy.vote=1"])
def test_a_vote_of_one_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="is a vote"):
        check(["strategy=l2p_jax", "model=vit_nano", line])


def test_random_parts_of_images(view) -> None:
    across = torch.arange(0, 256, 8).to(torch.uint8).expand(200, 1, 32, 32)
    part = view("resized_crop", scale=[0.25, 1.0], centre=1.0)
    torch.testing.assert_close(part(across, None), across / 255)
    x = part(across, torch.Generator().manual_seed(0))
    assert torch.equal(x, part(across, torch.Generator().manual_seed(0)))
    slope = (x[:, 0, 16, 24] - x[:, 0, 16, 8]) * 255 / (16 * 8)  # the width of the part, below 0 where it is mirrored
    torch.testing.assert_close(x[:, :, 5], x[:, :, 20])  # rows are alike in the image, and so in its parts
    assert 0.4 < float((slope < 0).float().mean()) < 0.6
    assert 0.4 < float(slope.abs().min()) < 0.55 and 0.9 < float(slope.abs().max()) <= 1.001
    half = view("resized_crop", centre=0.5)(across, None)[0, 0, 16]
    assert float(half[0]) * 255 == pytest.approx(8 * 8, abs=0.5)  # nothing from outside the part


def test_imagenet_r(tmp_path, picture, source, error) -> None:
    assert "unpack it in" in error(source("imagenet_r", tmp_path))
    for k, name in enumerate(("n01", "n02")):
        for i in range(5):
            picture(tmp_path / "imagenet-r" / name / f"{i}.png", (100 * k + 50, 10 * i, 7))
    (tmp_path / "imagenet-r" / "README.txt").write_text("no picture")
    data = source("imagenet_r", tmp_path, num_classes=2, size=8)()
    assert data.train.raw.shape == (8, 3, 8, 8) and data.test.y.tolist() == [0, 1]


def test_every_row_that_takes_steps_has_the_rate_that_was_found() -> None:
    """What conf/tuned/l2p says reaches the run; what has a closed form needs none."""
    params = yaml.safe_load((CONF / "experiment/l2p/offline.yaml").read_text())["hydra"]["sweeper"]["params"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for row in params["strategy"].split(","):
            file = CONF / "tuned/l2p" / f"{row}.yaml"
            found = yaml.safe_load(file.read_text()) if file.exists() else {}
            config = compose("config", overrides=["experiment=l2p/offline", f"strategy={row}", "scenario=offline/diverse"])
            rate = found.get("train", {}).get("optimizer", {}).get("lr")
            assert rate == config.train.optimizer.lr or (rate is None and row in ("nmc", "ranpac")), row
            assert config.train.steps == 30 and config.train.epochs is None
            for name, value in found.get("strategy", {}).items():
                assert config.strategy[name] == value, (row, name)
