"""A backbone from one run: its saves, and starting from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from programs import run
from safetensors import safe_open
from safetensors.torch import load_file

import cl_bench.run
from cl_bench.checks import problems
from cl_bench.core.errors import ConfigError, DivergenceError, Interrupted
from cl_bench.core.schedule import FirstThen
from cl_bench.core.stop import Stop
from cl_bench.folder import RunFolder
from cl_bench.overrides import CONF
from cl_bench.resolve import resolve

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


def test_a_finished_run_says_what_it_did_not_save(whole: Path) -> None:
    for wanted in (False, True, list(STEPS), [9]):
        RunFolder(whole).check_saved(wanted)
    with pytest.raises(
        ConfigError, match=r"has no backbone_step5.safetensors, which runtime.save_backbone=\[4, 5\] asks for; give .* tag="
    ):
        RunFolder(whole).check_saved([4, 5])


def test_a_finished_run_is_not_skipped_over_weights_that_are_missing(tmp_path: Path) -> None:
    assert run(tmp_path, "experiment=smoke")[0] == 0
    status, _, err = run(tmp_path, "experiment=smoke", "runtime.save_backbone=true")
    assert status == 2 and err.count("\n") == 1 and "is finished and has no backbone.safetensors" in err


@pytest.mark.parametrize("calls", [5, 12])  # within the steps, and after them
def test_a_run_that_goes_on_says_what_it_can_save_no_more(tmp_path: Path, calls: int) -> None:
    with pytest.raises(Interrupted):
        execute(composed(*TINY, *PRETRAIN), tmp_path / "run", calls)
    asked = composed(*TINY, *PRETRAIN, "runtime.save_backbone=[1,2,10]")
    with pytest.raises(ConfigError, match=r"is past step 2 and has no backbone_step2.safetensors; leave that step out"):
        execute(asked, tmp_path / "run")
    asked["runtime"]["save_backbone"] = [1, 10]
    if calls == 5:
        assert {"backbone_step1.safetensors", "backbone_step10.safetensors"} <= outcome(execute(asked, tmp_path / "run")).keys()


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
