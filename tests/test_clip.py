"""CLIP's two towers through a stand-in of open_clip's interface, or open_clip itself where it is installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

import cl_bench.run
from cl_bench.checks import problems
from cl_bench.core.stop import Stop
from cl_bench.folder import RunFolder
from cl_bench.models import clip
from cl_bench.objectives.zero_shot import TextHead
from cl_bench.overrides import CONF
from cl_bench.resolve import resolve

WIDTH, SIZE = 6, 8


class Tiny(nn.Module):
    """The parts of open_clip's CLIP that are used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.visual = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, WIDTH))
        self.visual.image_size, self.visual.output_dim = SIZE, WIDTH  # type: ignore[assignment]
        self.words = nn.Embedding(128, WIDTH)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.words(tokens).sum(1)


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls of create_model; without a tag it is random, with `gone` it cannot be had."""
    calls: list[Any] = []

    def create_model(name: str, pretrained: str | None) -> Tiny:
        calls.append((name, pretrained))
        if pretrained == "gone":
            raise RuntimeError("Failed to download\nweights for tag 'gone'")
        return Tiny()

    def get_tokenizer(name: str) -> Any:
        return lambda texts: torch.tensor([[ord(c) for c in t.ljust(40)[:40]] for t in texts])

    module = SimpleNamespace(
        create_model=create_model,
        get_tokenizer=get_tokenizer,
        IMAGENET_CLASSNAMES=["tench"],
        OPENAI_IMAGENET_TEMPLATES=[lambda c: f"a {c}."],
    )
    monkeypatch.setitem(sys.modules, "open_clip", module)
    return calls


def composed(*overrides: str) -> dict[str, Any]:
    given = ("model=clip_b32", "objective=zero_shot", "scenario=sequence", "scenario.datasets=[toy,digits]", "scenario.head=per_dataset")
    small = (f"model.image_size={SIZE}", "train.steps=3", "train.batch_size=16", "train.schedule.warmup=1", "runtime.device=cpu")
    names = ("+objective.names.toy=[a,b,c,d,e,f]", "+objective.names.digits=[zero,one,two,three,four,five,six,seven,eight,nine]")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = (*given, *small, *names, "runtime.progress=false", *overrides)
        config = resolve(compose("config", overrides=list(overrides)), [CONF], named=False)
    config["name"] = {"model": "clip_b32"}
    assert problems(config) == []
    return config


def test_the_head_is_the_mean_of_prompts(open_clip: list[Any]) -> None:
    """Per class: each prompt's embedding to length 1, their mean to length 1; the logit is the scaled cosine."""
    config = composed()
    _, stream = cl_bench.run.make_stream(config)
    fabric = SimpleNamespace(device=torch.device("cpu"))
    learner, weights = cl_bench.run.make_learner(config, stream, fabric)
    head, tower = learner.network.head, Tiny()
    assert isinstance(head, TextHead) and not list(head.parameters()) and weights["sha256"]
    assert set(open_clip) == {("ViT-B-32-quickgelu", "openai")}
    codes = torch.tensor([ord(c) for c in "a photo of a zero.".ljust(40)])
    text = tower.words(codes).sum(0)
    wanted = text / text.norm() * torch.tensor(2.0).exp()
    torch.testing.assert_close(head.weight[6], wanted)  # after toy's six classes
    image = torch.rand(2, 3, SIZE, SIZE)
    logits = learner.network(image)
    torch.testing.assert_close(logits[:, 6], F.normalize(tower.visual(image), dim=1) @ wanted)


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_a_clip_model_is_patched(open_clip: list[Any], tmp_path: Path, mode: str) -> None:
    """Its head stands still, its image tower moves."""
    config = composed("strategy=paint", "strategy.supported=[toy]", f"strategy.mode={mode}", "train.optimizer.lr=0.01")
    cl_bench.run.execute(config, RunFolder(tmp_path / "run"), Stop())
    rows = (tmp_path / "run" / "searches.csv").read_text().splitlines()
    assert len(rows) == 2 and RunFolder(tmp_path / "run").finished


def test_several_templates_and_open_clips_own(open_clip: list[Any]) -> None:
    weight, scale = clip.text_head("x", None, [["ab", "cd"], ["e"]])
    tower = Tiny()
    ab, cd = (F.normalize(tower.words(torch.tensor([ord(c) for c in t.ljust(40)])).sum(0), dim=0) for t in ("ab", "cd"))
    torch.testing.assert_close(weight[0], F.normalize((ab + cd) / 2, dim=0))
    assert scale == pytest.approx(float(torch.tensor(2.0).exp())) and clip.imagenet("names") == ["tench"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["model.weights=gone"], ["model.weights=gone", "Failed to download weights", "connect to the hub once"]),
        (["objective.weights=gone"], ["objective.weights=gone", "Failed to download weights", "or give objective.weights=<file>"]),
        (["model.name=ViT-B-32"], ["QuickGELU", "ViT-B-32-quickgelu"]),
        (["model.image_size=16"], ["8 x 8 x 3 and not at 16 x 16 x 3", "model.image_size=8"]),
        (["objective.names.toy=[a]"], ["toy has 6 classes and 1 names", "objective.names.toy"]),
    ],
)
def test_what_cannot_be_had_is_said(open_clip: list[Any], tmp_path: Path, error, changes: list[str], words: list[str]) -> None:
    config = composed(*changes)
    message = error(lambda: cl_bench.run.execute(config, RunFolder(tmp_path / "run"), Stop()))
    assert [word for word in words if word not in message] == [] and not (tmp_path / "run").exists()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, error) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert "pip install 'cl-bench[clip]'" in error(lambda: clip.create("ViT-B-32-quickgelu", None, "model"))


@pytest.mark.skipif(find_spec("open_clip") is None, reason="needs the extra [clip]")
def test_with_the_package() -> None:
    """Random weights: nothing is fetched."""
    backbone, dim = clip.clip(input_shape=(3, 224, 224), name="ViT-B-32-quickgelu", weights="openai", pretrained=False)
    weight, _ = clip.text_head("ViT-B-32-quickgelu", None, [["a photo of a cat."], ["a photo of a dog."]])
    assert backbone(torch.zeros(1, 3, 224, 224)).shape == (1, dim) and weight.shape == (2, dim)


def test_view_of_clip(view) -> None:
    raw = torch.randint(0, 256, (3, 3, 10, 10)).to(torch.uint8)
    clip = view("clip", scale=[0.25, 1.0], mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])
    plain = clip(raw, None)
    torch.testing.assert_close(plain[:, 2], (raw[:, 2] / 255 - 0.3) / 4)
    torch.testing.assert_close(clip(raw[:, :1], None)[:, 1], (raw[:, 0] / 255 - 0.2) / 2)  # grey
    drawn = clip(raw, torch.Generator().manual_seed(0))
    assert drawn.shape == plain.shape == clip(raw[:, :1], torch.Generator()).shape and not torch.equal(drawn, plain)
    flat = torch.full((4, 3, 10, 10), 99, dtype=torch.uint8)  # a part of one colour has that colour: nothing from outside
    torch.testing.assert_close(clip(flat, torch.Generator().manual_seed(1)), clip(flat, None))
