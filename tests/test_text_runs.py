"""Text through whole runs: every strategy on a tiny stream, what is learned, forgotten and reported, what is refused."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from test_pretrain import execute, outcome

from cl_bench import metrics
from cl_bench.checks import problems
from cl_bench.core.errors import ConfigError, Interrupted
from cl_bench.core.types import Examples
from cl_bench.data import texts
from cl_bench.data.resident import in_memory
from cl_bench.folder import RunFolder
from cl_bench.overrides import CONF, choices
from cl_bench.reports.__main__ import main as report
from cl_bench.reports.scale import PLAIN
from cl_bench.resolve import resolve
from cl_bench.run import make_stream
from cl_bench.scenarios.text import Text
from cl_bench.signatures import class_flag

CHANGES = {
    "ewc": ["strategy.estimator=sample"],
    "ewc_online": ["strategy.estimator=empirical"],
    "er_ewc": ["strategy.parts.ewc.estimator=sample"],
}


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets `words` and `numbers` of a user's own, as YAML in a --config-dir."""
    root = tmp_path_factory.mktemp("domains")
    (root / "data").mkdir()
    base = (CONF / "data" / "text.yaml").read_text()
    for name, line in (("words", "the cat sat on the mat and "), ("numbers", "1 + 12 = 13; ")):
        for part, times in (("train", 24), ("test", 9)):
            (root / name / part).mkdir(parents=True)
            (root / name / part / "a.txt").write_text(line * times)
        text = base.replace("name: text", f"name: {name}").replace("root: null", f"root: {root / name}")
        (root / "data" / f"{name}.yaml").write_text(text)
    return root


def configure(domains: Path, strategy: str, *more: str) -> dict[str, Any]:
    overrides = ["scenario=text", "scenario.datasets=[words,numbers]", f"strategy={strategy}", *CHANGES.get(strategy, [])]
    overrides += ["data.length=12", "model.width=8", "model.depth=1", "model.heads=2", "train.batch_size=8", "train.epochs=2"]
    overrides += ["runtime.device=cpu", "runtime.progress=false", "runtime.save_backbone=true", *more]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("config", overrides=overrides), [CONF, domains], named=False)
    config["name"] = {"scenario": "text", "data": "words+numbers", "model": "lm_nano", "objective": "causal_lm"}
    config["name"] |= {"strategy": strategy, "tag": "default", "seed": 0}
    return config


@pytest.mark.parametrize("strategy", choices("strategy"))
def test_every_strategy_runs_or_says_why_not(domains: Path, tmp_path: Path, strategy: str) -> None:
    """Without a line written for text in any of them; what runs goes on to the bit after a stop."""
    config = configure(domains, strategy)
    found = problems(config)
    parts = config["strategy"].get("parts", {"": config["strategy"]}).values()
    if any(class_flag(part["_target_"], "needs_classes") for part in parts):
        assert len(found) == 1 and "works on classes, and text has none" in found[0]
        return
    assert found == []
    refused = {"er_balanced": "by class, and text has no classes", "der_light": "strategy.light is a view of images"}
    if strategy in refused:
        with pytest.raises(ConfigError, match=refused[strategy]):
            execute(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return
    whole = outcome(execute(config, tmp_path / "run"))
    rows = RunFolder(tmp_path / "run").read_rows()
    assert {row["metric"] for row in rows} == {"loss"} and all(0 < row["value"] < 7 for row in rows)
    assert {"loss.csv", "loss_forgetting.csv", "summary.csv", "backbone.safetensors"} <= set(whole)
    with pytest.raises(Interrupted):
        execute(config, tmp_path / "stopped", calls=9)
    assert outcome(execute(config, tmp_path / "stopped")) == whole


@pytest.mark.parametrize("estimator", ["exact", "legacy"])
def test_a_fisher_over_all_texts_is_refused(domains: Path, tmp_path: Path, estimator: str) -> None:
    with pytest.raises(ConfigError, match=f"strategy.estimator={estimator} .* give sample"):
        execute(configure(domains, "ewc", f"strategy.estimator={estimator}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_learns_forgets_and_reports(domains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cl_bench.show import show_run

    more = ["train=adam", "train.epochs=60", "train.batch_size=8", "train.optimizer.lr=0.01", "look.before=true", "look.future=true"]
    for strategy in ("sequential", "er"):
        execute(configure(domains, strategy, *more), tmp_path / strategy)
    header, before, first, second = list(csv.reader((tmp_path / "sequential" / "loss.csv").open()))
    assert header == ["after", "words", "numbers"] and [before[0], first[0], second[0]] == ["-1", "0", "1"]
    assert float(before[1]) == pytest.approx(math.log(256), abs=0.5) and float(first[1]) < 1
    assert float(second[1]) > float(first[1]) + 1 and float(second[2]) < 1.5  # it forgot the words
    summaries = {s: {k: v for k, v in csv.reader((tmp_path / s / "summary.csv").open())} for s in ("sequential", "er")}
    one = summaries["sequential"]
    assert float(one["loss_average"]) == pytest.approx((float(second[1]) + float(second[2])) / 2, abs=1e-4)
    assert float(one["loss_average_forgetting"]) == pytest.approx(float(second[1]) - float(first[1]), abs=1e-4)
    assert float(summaries["er"]["loss_average_forgetting"]) < float(one["loss_average_forgetting"]) / 2
    risen = list(csv.reader((tmp_path / "sequential" / "loss_forgetting.csv").open()))
    assert float(risen[-1][1]) == pytest.approx(float(one["loss_average_forgetting"]), abs=1e-4)
    assert json.loads((tmp_path / "er" / "provenance.json").read_text())["data"].keys() == {"words", "numbers"}
    show_run(tmp_path / "er")
    assert "loss in nats" in capsys.readouterr().out
    assert report([str(tmp_path), "--by", "strategy"]) == 0
    printed = capsys.readouterr().out
    assert "sequential" in printed and "average" in printed
    names = {p.name for p in (tmp_path / "report").iterdir()}
    assert {"loss_over_tasks.png", "loss_matrix_er.png", "table.md"} <= names
    assert not [name for name in names if "accuracy" in name]
    assert "loss average forgetting" in (tmp_path / "report" / "table.md").read_text()


def test_weights_of_a_file_fit_or_are_refused(domains: Path, tmp_path: Path) -> None:
    execute(configure(domains, "sequential"), tmp_path / "first")
    weights = tmp_path / "first" / "backbone.safetensors"
    execute(configure(domains, "sequential", f"model.init={weights}", "tag=more"), tmp_path / "second")
    assert json.loads((tmp_path / "second" / "provenance.json").read_text())["weights_loaded"] > 5
    from safetensors.torch import load_file, save_file

    state = load_file(weights)
    state["vocabulary.weight"] = torch.zeros(300, 8)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"shapes differ: vocabulary.weight \(300, 8\) for \(256, 8\)"):
        execute(configure(domains, "sequential", f"model.init={tmp_path / 'other.safetensors'}"), tmp_path / "third")
    with pytest.raises(ConfigError, match="shapes differ: positions"):
        execute(configure(domains, "sequential", f"model.init={weights}", "data.length=10"), tmp_path / "third")
    assert not (tmp_path / "third").exists()


BPE = ["data.tokens=bpe", "data.vocabulary=262", "data.length=5"]


def test_domains_speak_the_bpe_of_the_first(domains: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    config = configure(domains, "er", *BPE, f"data_root={tmp_path}")  # int32 tokens in the memory
    whole = outcome(execute(config, tmp_path / "run"))
    [file] = (tmp_path / "cache").glob("*.tokenizer.json")
    assert file.name.startswith("words-")
    told = json.loads((tmp_path / "run" / "provenance.json").read_text())["data"]
    assert told["tokenizer of words"] == told["tokenizer of numbers"] and told["tokenizer of words"][:12] in file.name
    _, stream = make_stream(config)
    read = [library.Tokenizer.from_file(str(file)).decode(e.train.raw[0].tolist()) for e in stream.experiences]
    assert "the cat sat".startswith(read[0]) and "1 + 12 = 13; ".startswith(read[1]) and read[1]
    with pytest.raises(Interrupted):
        execute(config, tmp_path / "stopped", calls=9)
    assert outcome(execute(config, tmp_path / "stopped")) == whole
    given = configure(domains, "er", *BPE, f"data.tokenizer={file}")
    assert outcome(execute(given, tmp_path / "given"))["metrics.jsonl"] == whole["metrics.jsonl"]
    file.unlink()
    with pytest.raises(ConfigError, match=r"words-.*json is gone; delete words-\*.safetensors beside it"):
        execute(config, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_the_paper_scale_preset_comes_to_its_stream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first job of its sweep, with small texts in the place of the hub's."""
    pytest.importorskip("tokenizers")
    numbers = torch.randint(0, 16, (2, 3000, 8), generator=torch.Generator().manual_seed(0))
    reviews, articles = [" ".join("".join(map(chr, word)) for word in part.tolist()) for part in (97 + numbers[0], 105 + numbers[1])]
    monkeypatch.setattr(texts.Hub, "_split", lambda self, split: [(split, {"imdb": reviews, "wikipedia": articles}[self.name])])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sweep = compose("config", overrides=["experiment=scale/language"], return_hydra_config=True).hydra.sweeper.params
        first = [f"{key}={value if str(value).startswith('[') else str(value).split(',')[0]}" for key, value in sweep.items()]
        config = compose("config", overrides=["experiment=scale/language", *first, f"data_root={tmp_path}"])
        config = resolve(config, [CONF], named=False)
    assert problems(config) == []
    assert config["train"]["schedule"]["_target_"].endswith(".FirstThen")
    found, stream = make_stream(config)
    assert [e.name for e in stream.experiences] == ["imdb", "wikipedia"] and stream.num_classes == 8192
    assert found[0].tokenizer == found[1].tokenizer != ()


def test_pythia_enters_the_question_of_language() -> None:
    """By its tag; a size is a model."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=["experiment=scale/language_pretrained", "size=70m"])
    assert re.fullmatch(PLAIN, config.tag) and config.name.model == "pythia_70m" and config.model.name.endswith("pythia-70m")


def test_tokens_of_its_own_for_each_domain_are_refused() -> None:
    """As a source that is not ours may bring them."""
    data = Examples(torch.zeros(4, 6, dtype=torch.int32), torch.zeros(4, dtype=torch.int64))
    a, b = (replace(in_memory(name, data, data, 262), tokenizer=(name,)) for name in ("words", "numbers"))
    scenario = Text(datasets=["words", "numbers"], order_seed=0, valid_fraction=0.0)
    with pytest.raises(ConfigError, match=r"words and numbers have tokens of their own; give all the same tokenizer.json"):
        scenario({"words": a, "numbers": b})
    assert scenario({"words": a, "numbers": replace(b, tokenizer=("words",))}).num_classes == 262


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=python_docs"], ["model, objective, view, probe.accuracy", "scenario=text"]),
        (["objective=causal_lm"], ["objective is for text", "images"]),
        (["scenario=text", "model=mlp"], ["model cannot take", "lm_nano"]),
        (["scenario=text", "probe=[tokens,accuracy]"], ["probe.accuracy"]),
        (["scenario=text", "scenario.datasets=[python_docs,digits]"], ["some are text"]),
        (
            ["scenario=text", "data=text", "data.root=mine"],
            ["data.root=mine is of data=text, which is not among scenario.datasets=[python_docs"],
        ),
        (["scenario=text", "model.image_size=8"], ["model.image_size=8", "null"]),
        (["scenario=text", "data=text", "data.root=/nowhere"], ["data.root=/nowhere", "a file or folder that exists"]),
        (["scenario=text", "strategy=icarl"], ["iCaRL", "text has none"]),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else None,
)
def test_what_does_not_fit_is_told_before_torch(overrides: list[str], words: list[str]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = " | ".join(problems(resolve(compose("config", overrides=overrides), [CONF], named=False)))
    assert "\n" not in found and not [w for w in words if w.lower() not in found.lower()], found


def test_loss_figures_have_their_direction() -> None:
    import numpy as np

    found = metrics.loss_summary(np.array([[2.0, 5.0], [3.5, 1.0]]), np.array([5.5, 5.5]))
    assert found["average"] == 2.25 and found["learning"] == 1.5 and found["anytime"] == pytest.approx(2.125)
    assert found["average_forgetting"] == found["forgetting_last_minus_learned"] == 1.5
    assert found["backward_transfer"] == -1.5 and found["forward_transfer"] == 0.5
