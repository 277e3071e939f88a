"""The scale study: task A ended at another run's accuracy, twins handicapped two ways, presets that tell what is missing."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from made_up_runs import make_run
from programs import run
from test_pretrain import execute, outcome

from cl_bench.checks import problems
from cl_bench.cli import check
from cl_bench.core.errors import ConfigError, Interrupted
from cl_bench.data.views import Ink
from cl_bench.match import METRIC, Match
from cl_bench.overrides import CONF
from cl_bench.reports import collect, handicapped
from cl_bench.resolve import resolve

TOY = (
    "scenario=toy",
    "data=toy",
    "scenario.valid_fraction=0.25",
    "train.epochs=null",
    "train.steps=12",
    "train.batch_size=8",
    "train.optimizer.lr=0.1",
)


def composed(run: str | None, *overrides: str, every: int = 1) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[*TOY, *overrides, "runtime.progress=false"], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return {**resolve(config, [CONF]), "match": {"run": run, "every": every}}


def noted(path: Path) -> dict[tuple[int, str], float]:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return {(r["after"], r["on"]): r["value"] for r in rows if r["metric"] == METRIC}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return execute(composed(None, "seed=1"), tmp_path_factory.mktemp("match") / "plain")


def test_notes_held_out_accuracy_of_what_is_learned(plain: Path) -> None:
    found = noted(plain)
    tasks = sorted({on for _, on in found})
    assert set(found) == {(after, on) for after in range(len(tasks)) for number, on in enumerate(tasks) if number <= after}


def test_ends_the_first_task_at_the_first_step_that_reaches_it(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, float]] = []
    accuracy = Match._accuracy

    def watched(self: Match, learner: Any, experience: Any) -> float:
        seen.append((learner.number, learner.step, accuracy(self, learner, experience)))
        return seen[-1][2]

    monkeypatch.setattr(Match, "_accuracy", watched)
    wanted = noted(plain)[0, "task0"]
    assert wanted > 0.5
    path = execute(composed(str(plain), every=2), tmp_path / "stopped")
    looks = [value for number, step, value in seen if number == 0][:-1]  # the last one is noted
    assert [v >= wanted for v in looks] == [False] * (len(looks) - 1) + [True]
    assert [step for number, step, _ in seen if number == 0][: len(looks)] == list(range(0, 2 * len(looks), 2))
    assert noted(path)[0, "task0"] >= wanted and f"task0 ends at step {2 * len(looks) - 2}: " in (path / "run.log").read_text()
    never = execute(composed(str(plain), "train.optimizer.lr=0.0", every=2), tmp_path / "never")
    assert f"{wanted:.4f} of match.run not reached\n" in (never / "run.log").read_text()
    whole = outcome(path)
    for calls in (1, 2, 3, 5, 8):  # killed anywhere, the same end
        again = tmp_path / f"killed{calls}"
        with pytest.raises(Interrupted):
            execute(composed(str(plain), every=2), again, calls)
        assert outcome(execute(composed(str(plain), every=2), again)) == whole


def test_match_needs_a_run_and_held_out_examples(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere is no finished run; run that one first \(row=scratch"):
        execute(composed(str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (wrong,) = problems(composed(None, "scenario.valid_fraction=0.0"))
    assert "set scenario.valid_fraction" in wrong
    (wrong,) = problems(composed(None, every=0))
    assert wrong.startswith("match={") and "every" in wrong


def scale_run(root: Path, tag: str, row: str, valid: float, a: float, slow: float = 1.0, seed: int = 0, init: str = "w") -> None:
    folder = make_run(root, "sequential", seed, 0.5, f"after,task0,task1\n0,{a},0.1\n1,{a - 0.2},0.8\n", tag=tag)
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"row": row, "lr": 0.03, "slow": slow}
    config |= {"match": {"run": "r" if row == "stopped" else None}, "model": {"init": "scratch" if row == "scratch" else init}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text(json.dumps({"after": 0, "on": "task0", "metric": METRIC, "value": valid}) + "\n")


def test_handicapped_is_chosen_on_held_out_examples(tmp_path: Path) -> None:
    scale_run(tmp_path, "scratch", "scratch", 0.7, 0.72)
    scale_run(tmp_path, "stopped", "stopped", 0.7, 0.75)
    scale_run(tmp_path, "full", "pretrained", 0.95, 0.72)  # its test accuracy agrees, but nobody may look at that
    scale_run(tmp_path, "tenth", "pretrained", 0.71, 0.68, slow=0.1)
    scale_run(tmp_path, "early", "pretrained", 0.7, 0.6, init="w_step30")  # another backbone, which was not handicapped
    found = handicapped.pairs(handicapped.read(collect.read_runs([tmp_path])))
    assert found["protocol"].tolist() == ["stopped", "slowed"]
    assert found["gap"].tolist() == pytest.approx([0.03, -0.04])
    assert found["scratch a"].tolist() == [0.72, 0.72] and found["handicapped a"].tolist() == [0.75, 0.68]
    assert found["scratch forgetting"].tolist() == pytest.approx([0.2, 0.2])
    shown = handicapped.summary(found)
    assert shown["n"].tolist() == [1, 1] and shown["gap"].tolist() == ["-0.0400", "0.0300"]


def test_no_pair_of_other_seeds_and_none_without_presets(tmp_path: Path) -> None:
    scale_run(tmp_path, "scratch", "scratch", 0.7, 0.72)
    scale_run(tmp_path, "stopped", "stopped", 0.7, 0.75, seed=1)
    assert handicapped.pairs(handicapped.read(collect.read_runs([tmp_path]))).empty
    make_run(tmp_path / "other", "sequential", 0, 0.5)
    assert handicapped.read(collect.read_runs([tmp_path / "other"])).equals(pd.DataFrame([]))


def test_a_preset_tells_which_command_makes_its_backbones(tmp_path: Path) -> None:
    """Before training, by the first model of its own sweep, with the choice's name in the place; and in a process of its own."""
    said = run(tmp_path, "experiment=scale/split_cifar10", "offline=true")[2].strip()
    assert re.search("pretrain_glyphs/vit_femto/.*no file.*run this first: python -m cl_bench experiment=scale/pretrain$", said)
    with pytest.raises(ConfigError, match="pretrain_glyphs/vit_nano/"):
        check(["experiment=scale/split_cifar10", "offline=true", "model=vit_nano", f"runtime.outputs={tmp_path}"])
    assert check(["experiment=scale/split_cifar10", "offline=true", "row=scratch", f"runtime.outputs={tmp_path}"])[1]


def study() -> ModuleType:
    """scripts/study.py"""
    spec = importlib.util.spec_from_file_location("study", CONF.parent / "scripts" / "study.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_study_asks_for_what_there_is(tmp_path: Path) -> None:
    """Every command of `make study` composes; nothing but its backbones is missing."""
    told = []
    for line in study().RUNS:
        try:
            check([*line.split(), f"runtime.outputs={tmp_path}"])
        except ConfigError as error:
            told.append(str(error))
    assert told
    assert all("run this first" in words and "mistakes" not in words for words in told)


def test_ink_is_light_on_dark() -> None:
    """A picture and its negative look the same; an even one is zero."""
    torch.set_default_dtype(torch.float64)
    raw = torch.zeros(4, 1, 6, 6, dtype=torch.uint8)
    raw[0, 0, 2:4, 1:5] = 200
    raw[1] = 255 - raw[0]
    raw[2] = 77
    raw[3, 0] = torch.arange(36).view(6, 6)
    seen = Ink()(raw, None)
    for image, found in zip(raw[:, 0].double(), seen[:, 0]):
        edge = [image[r, c] for r in range(6) for c in range(6) if {r, c} & {0, 5}]
        corners = [image[r, c] for r in (0, 5) for c in (0, 5)]  # in two edges each
        paper = sum(edge + corners) / 24
        sign = -1 if paper > image.mean() else 1
        assert torch.allclose(found, sign * (image - image.mean()) / (image.std(correction=0) + 1))
    assert torch.allclose(seen[0], seen[1])
    assert seen[0, 0, 2, 2] > 0 > seen[0, 0, 0, 0]
    assert not seen[2].any()
