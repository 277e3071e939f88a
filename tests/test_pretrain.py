"""A backbone from one run: its stream, its saves, its sizes, and starting from it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors import safe_open
from safetensors.torch import load_file

import cl_bench.run
from cl_bench.build import build
from cl_bench.checks import OF_MODEL, problems
from cl_bench.core.errors import ConfigError, DivergenceError, Interrupted
from cl_bench.core.schedule import FirstThen
from cl_bench.core.stop import Stop
from cl_bench.core.types import Examples
from cl_bench.data.resident import Dataset, in_memory
from cl_bench.data.views import ChannelsLast, Plain
from cl_bench.folder import RunFolder
from cl_bench.overrides import CONF
from cl_bench.resolve import resolve
from cl_bench.scenarios.pretrain import Pretrain

TINY = ("data=toy", "runtime.device=cpu", "runtime.progress=false", "train.batch_size=16")
STEPS = (1, 4, 9)
PRETRAIN = (
    "scenario=pretrain",
    "model=resnet_w8",
    "view.padding=1",
    "train.schedule.warmup=2",
    "train.steps=10",
    f"runtime.save_backbone={list(STEPS)}",
)


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("config", overrides=list(overrides)), [CONF], named=False)
    config["name"] = {"model": next(o for o in overrides if o.startswith("model=")).removeprefix("model=")}
    assert problems(config) == []
    return config


def execute(config: dict[str, Any], path: Path, calls: int | None = None) -> Path:
    """Stopped by a signal 15 after so many looks at it, where given."""
    looked = 0

    class StopAfter(Stop):
        def __call__(self) -> int:
            nonlocal looked
            looked += 1
            return 15 if calls is not None and looked > calls else 0

    cl_bench.run.execute(config, RunFolder(path), StopAfter())
    return path


def outcome(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir() if p.suffix in (".csv", ".jsonl", ".safetensors")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return execute(composed(*TINY, *PRETRAIN), tmp_path_factory.mktemp("pretrain") / "run")


def test_saves_at_the_chosen_steps_and_says_from_what(whole: Path) -> None:
    files = {f"backbone_step{k}.safetensors": k for k in STEPS} | {"backbone.safetensors": 10}
    assert {p.name for p in whole.glob("*.safetensors")} == set(files)
    abouts = []
    for name, step in files.items():
        with safe_open(whole / name, framework="pt") as file:
            about = json.loads(file.metadata()["cl_bench"])
        assert about.pop("step") == step
        abouts.append(about)
    assert all(about == abouts[0] for about in abouts)
    assert abouts[0]["model"] == "resnet_w8" and abouts[0]["input"] == [1, 6, 6] and abouts[0]["settings"]["width"] == 8
    provenance = json.loads((whole / "provenance.json").read_text())
    assert abouts[0]["data"] == provenance["data"] and len(abouts[0]["config"]) == 64
    counters = [int(load_file(whole / name)["bn1.num_batches_tracked"]) for name in files]
    assert counters == list(files.values())  # batch norm counts the steps too


@pytest.mark.parametrize("calls", [0, 2, 5, 10, 13])
def test_restart_to_the_bit(whole: Path, tmp_path: Path, calls: int) -> None:
    config = composed(*TINY, *PRETRAIN)
    with pytest.raises(Interrupted):
        execute(config, tmp_path / "run", calls)
    for file in (tmp_path / "run").glob("backbone_step*"):
        assert file.read_bytes() == (whole / file.name).read_bytes()
    assert outcome(execute(config, tmp_path / "run")) == outcome(whole)


@pytest.mark.parametrize("name", [f"backbone_step{k}.safetensors" for k in STEPS] + ["backbone.safetensors"])
def test_starts_from_each_save(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What the first look sees is the saved backbone."""
    seen = []
    run = cl_bench.run.run
    monkeypatch.setattr(cl_bench.run, "run", lambda learner, *rest: (seen.append(state(learner.network.backbone)), run(learner, *rest)))
    config = composed(*TINY, "scenario=toy", "model=resnet_w8", f"model.init={whole / name}", "train=scale", "train.steps=2")
    execute(config, tmp_path / "run")
    saved = load_file(whole / name)
    assert seen[0].keys() == saved.keys() and all(torch.equal(seen[0][k], saved[k]) for k in saved)
    assert name in (tmp_path / "run" / "run.log").read_text()
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["weights"]["sha256"]


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def test_refuses_another_size_and_a_step_that_never_comes(whole: Path, tmp_path: Path) -> None:
    file = whole / "backbone.safetensors"
    with pytest.raises(ConfigError, match="saved from resnet_w8 at 6 x 6 x 1, and this is resnet_w16 at 6 x 6 x 1"):
        execute(composed(*TINY, "scenario=toy", "model=resnet_w16", f"model.init={file}"), tmp_path / "a")
    with pytest.raises(ConfigError, match=r"there is no step 11, the first experience has 10"):
        execute(composed(*TINY, *PRETRAIN, "runtime.save_backbone=[4,11]"), tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_loss_that_is_not_finite_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "discard", lambda folder: None)  # as after a first save
    with pytest.raises(DivergenceError):
        execute(composed(*TINY, *PRETRAIN, "train.optimizer.lr=1e30", "train.clip=null", "runtime.save_backbone=[9]"), tmp_path / "run")
    assert not list(tmp_path.rglob("backbone*"))


def test_the_schedule_is_told_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a run that goes on in its second."""
    told: list[tuple[int, int, int]] = []
    monkeypatch.setattr(FirstThen, "__call__", lambda self, *place: told.append(place) or 1.0)
    config = composed(*TINY, "scenario=toy", "model=mlp", "model.hidden=[4]", "train=scale", "train.steps=2")
    with pytest.raises(Interrupted):
        execute(config, tmp_path / "run", 6)
    assert 2 < len(told) < 6
    execute(config, tmp_path / "run")
    assert told == [(step, 2, number) for number in range(3) for step in range(2)]


# the stream


def data(counts: tuple[int, ...] = (12, 8, 16, 9, 20)) -> Dataset:
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    raw = torch.arange(len(y), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return in_memory("mine", Examples(raw, y), Examples(raw + 100, y), len(counts))


def pretrain(**changes: Any) -> Pretrain:
    return Pretrain(**{"fraction": 1.0, "by": "image", "exclude": [], "order_seed": 0, "valid_fraction": 0.0, **changes})


def images(**changes: Any) -> set[int]:
    return set(pretrain(**changes)(data()).experiences[0].train.raw[:, 0, 0, 0].tolist())


def test_the_whole_is_the_data() -> None:
    stream, given = pretrain()(data()), data()
    (experience,) = stream.experiences
    assert torch.equal(experience.train.raw, given.train.raw) and torch.equal(experience.train.y, given.train.y)
    assert torch.equal(stream.tests["pretrain"].data.raw, given.test.raw) and stream.num_classes == 5 and not stream.subclasses


@pytest.mark.parametrize("by", ["image", "class"])
@pytest.mark.parametrize("valid", [0.0, 0.2])
def test_fractions_are_nested(by: str, valid: float) -> None:
    found = [images(fraction=f, by=by, valid_fraction=valid) for f in (1.0, 0.8, 0.6, 0.4)]
    assert all(small < large for large, small in pairwise(found))
    assert found[2] != images(fraction=0.6, by=by, valid_fraction=valid, order_seed=1)


def test_the_held_out_examples_are_no_part_of_any_fraction() -> None:
    (whole,), (half,) = (pretrain(fraction=f, valid_fraction=0.2)(data()).experiences for f in (1.0, 0.5))
    assert whole.valid is not None and half.valid is not None and torch.equal(whole.valid.raw, half.valid.raw)
    assert len(whole.valid) == 13 and not set(whole.valid.raw[:, 0, 0, 0].tolist()) & set(whole.train.raw[:, 0, 0, 0].tolist())


def test_a_fraction_of_each_class() -> None:
    (experience,) = pretrain(fraction=0.25)(data()).experiences
    assert experience.train.y.bincount().tolist() == [3, 2, 4, 2, 5]


def test_classes_left_out_are_nowhere() -> None:
    """And the labels of the others close up."""
    stream, given = pretrain(exclude=[1, 3])(data()), data()
    assert stream.num_classes == 3 and stream.subclasses == {"pretrain": [[0], [2], [4]]}
    for part, source in ((stream.experiences[0].train, given.train), (stream.tests["pretrain"].data, given.test)):
        assert part.y.unique().tolist() == [0, 1, 2]
        behind = dict(zip(source.raw[:, 0, 0, 0].tolist(), source.y.tolist(), strict=True))
        assert {(behind[r], y) for r, y in zip(part.raw[:, 0, 0, 0].tolist(), part.y.tolist(), strict=True)} == {(0, 0), (2, 1), (4, 2)}
    halved = pretrain(exclude=[1], fraction=0.5, by="class")(data())
    assert halved.num_classes == 2 and [1] not in halved.subclasses["pretrain"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fraction": 0.1}, "class 1 without an image: 8 are there"),
        ({"fraction": 0.2, "by": "class"}, "leaves 1; at least 2"),
        ({"exclude": [5]}, "no class 5; give classes 0 to 4"),
        ({"exclude": [0, 1, 2, 3]}, "leaves 1; at least 2"),
        ({"fraction": 0.5, "valid_fraction": 0.95}, "without an image"),
    ],
)
def test_what_leaves_a_class_empty_is_refused(changes: dict[str, Any], words: str, error) -> None:
    assert words in error(lambda: pretrain(**changes)(data()))


# sizes


def made(name: str, shape: tuple[int, int, int], *more: str) -> torch.nn.Module:
    config = composed(f"model={name}", *more)
    node = {k: v for k, v in config["model"].items() if k not in OF_MODEL}
    with torch.device("meta"):
        return build(node, config["runtime"]["allow_targets"], input_shape=shape, pretrained=False)[0]


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "width", "depth"),
    [("vit_femto", 48, 4), ("vit_pico", 64, 4), ("vit_nano", 96, 6), ("vit_micro", 128, 8), ("vit_xs", 192, 12), ("vit_b_in21k", 768, 12)],
)
def test_parameters_of_vision_transformers(name: str, width: int, depth: int) -> None:
    """Patches, class token, positions, blocks (2 norms, qkv, projection, MLP of 4), last norm."""
    size, patch, channels = (224, 16, 3) if name.endswith("in21k") else (32, 4, 1)
    blocks = depth * (2 * 2 * width + (width + 1) * 3 * width + (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width)
    wanted = (channels * patch**2 + 1) * width + width + ((size // patch) ** 2 + 1) * width + blocks + 2 * width
    assert count(made(name, (channels, size, size))) == wanted


@pytest.mark.parametrize(("groups", "width"), [("null", 8), ("null", 16), ("null", 32), ("null", 64), ("4", 8)])
def test_parameters_of_resnets(groups: str, width: int) -> None:
    """A 3 x 3 stem, then 4 stages of 2 blocks of two 3 x 3, with a 1 x 1 where the width changes; norms have 2 a channel."""
    wanted, before = 9 * width + 2 * width, width
    for stage in range(4):
        w = width * 2**stage
        wanted += 9 * before * w + 3 * 9 * w * w + 4 * 2 * w + (before * w + 2 * w) * (before != w)
        before = w
    model = made(f"resnet_w{width}", (1, 32, 32), f"model.groups={groups}")
    assert count(model) == wanted
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) == (groups == "null")
    if width == 64:
        assert state(model).keys() == state(made("resnet18", (1, 32, 32))).keys()


def test_small_stem_of_a_network_that_has_none_is_refused(error) -> None:
    assert "model.image_size=224" in error(lambda: made("bit_50", (3, 32, 32), "model.small_stem=null"))
    assert "no multiple of 2 x model.groups=8" in error(lambda: made("resnet_w8", (3, 32, 32), "model.groups=8"))
    assert "give 4 numbers" in error(lambda: made("resnet_w8", (3, 32, 32), "model.blocks=[1,1]"))


# speed


def test_channels_last_is_the_same_picture() -> None:
    raw = torch.randint(0, 256, (2, 3, 5, 4)).to(torch.uint8)
    plain = Plain(mean=0.5, std=0.5)
    found = ChannelsLast(plain)(raw, None)
    assert torch.equal(found, plain(raw, None)) and found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("strategy", ["ewc", "derpp", "packnet", "pnn", "lwf", "icarl"])
def test_compiled_and_channels_last_train_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    given = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        given.extend(i for i in inputs if isinstance(i, torch.Tensor) and i.shape[1:] == (3, 6, 6))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    small = ("scenario=toy", "model=resnet_w8", "model.blocks=[1,1,1,1]", "model.channels=3", "train.steps=2", "train.epochs=null")
    config = composed(*TINY, *small, f"strategy={strategy}", "runtime.save_backbone=true", "runtime.precision=64-true")
    plain = load_file(execute(config, tmp_path / "plain") / "backbone.safetensors")
    torch.set_default_dtype(torch.float32)  # the first run changed it
    config["runtime"] |= {"compile": True, "channels_last": True}
    fast = load_file(execute(config, tmp_path / "fast") / "backbone.safetensors")
    assert given and all(image.is_contiguous(memory_format=torch.channels_last) for image in given)
    assert fast.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(fast[name], tensor, rtol=1e-6, atol=1e-8)
