"""Every file under conf/ composes, binds and builds: a new one is picked up by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from cl_bench.build import build
from cl_bench.checks import NODES, OF_MODEL, problems
from cl_bench.cli import check
from cl_bench.core.errors import ConfigError
from cl_bench.overrides import CONF, GROUPS, choices
from cl_bench.resolve import resolve
from cl_bench.rules import targets
from cl_bench.signatures import class_flag

EVERY = [(group, name) for group in GROUPS for name in choices(group)]
TEXT = [  # only beside each other; scenario=text brings the rest
    *(("data", name) for name in ("text", "python_docs", "python_source", "python_packages", "imdb", "wikitext", "wikipedia")),
    *(("model", name) for name in choices("model") if name.startswith(("lm_", "hf_"))),
    *(("objective", "causal_lm"), ("view", "tokens"), ("probe", "tokens")),
]
PROMPTED = [
    name for name in choices("strategy") if name.startswith(("l2p", "dualprompt", "coda_prompt", "lora", "masked", "slca", "ranpac_lora"))
]
NEED_CLASSES = ("er_ace", "gdumb", "icarl", "lump", "nmc", "packnet", "paint", "pnn", "ranpac", *PROMPTED)  # and text has none
UNLABELLED = ("simsiam", "simsiam_small", "barlow_twins", "barlow_twins_small")
NEED_LOGITS = (
    "er_ace",
    "er_balanced",
    "er_ewc",
    "ewc",
    "ewc_online",
    "gdumb",
    "icarl",
    "lwf",
    "mas",
    "nmc",
    "packnet",
    "paint",
    "ranpac",
    *PROMPTED,
)
COSTLY = (
    "resnet101",
    "resnet152",
    "bit_50",
    "bit_101",
    "vit_b",
    "vit_s_in21k",
    "vit_b_in21k",
    "vit_b_orig_in21k",
)  # on torch's meta device


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return resolve(config, [CONF])


def test_groups_are_the_folders() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert set(GROUPS) == folders - {"hydra"}  # Hydra's own: launchers
    assert all(choices(group) for group in GROUPS)


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_composes_and_binds(group: str, name: str) -> None:
    override = f"{group}={name}"
    more = {
        ("scenario", "toy"): ["data=toy"],
        ("data", "toy"): ["scenario=toy"],
        ("data", "folder"): ["data.root=."],  # has no default: it is the user's
        ("data", "text"): ["data.root=.", "scenario=text", "scenario.datasets=[text]"],
        **{
            ("data", name): ["scenario=pretrain"] for name in ("pets", "flowers102", "cars", "dtd", "gtsrb", "sun397")
        },  # five tasks do not divide their classes
        **{("experiment", f"paint/{name}"): ["model.init=scratch"] for name in ("offline", "in_a_row")},  # start from another run's file
        **{("experiment", f"l2p/{name}"): ["model.init=scratch"] for name in ("offline", "controls", "rates")},
        **{("probe", p): [f"probe=[accuracy,{p}]"] for p in choices("probe") if p not in ("accuracy", "tokens")},
    }.get((group, name), ["scenario=text"] if (group, name) in TEXT else [])
    if name == "scale/language_pretrained_offline":
        more = ["model.init=scratch"]  # it asks for a backbone, which is not there
    elif name.startswith("scale/") and name != "scale/pretrain" and not name.startswith("scale/language"):
        more = ["row=scratch"]  # so do these
    if group == "tuned" and name.startswith("l2p/"):  # of experiment=l2p/offline
        more = [f"strategy={name.removeprefix('l2p/')}"]
    elif group == "tuned" and name.startswith("ucl/"):  # <objective or data>_<strategy>
        more = [f"strategy={next(s for s in sorted(choices('strategy'), key=len, reverse=True) if name.endswith(f'_{s}'))}"]
    elif group == "tuned":  # offline/<stream>_<strategy>
        scenario = next(f"offline/{c}" for c in sorted(choices("scenario/offline"), key=len) if name.startswith(f"offline/{c}_"))
        more = [f"scenario={scenario}", f"strategy={name.removeprefix(f'{scenario}_')}"]
    config = composed(override, *more)
    assert problems(config) == []
    if group == "experiment":
        check([override, *more])  # its own sweep, as the command line takes it


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_says_what_it_is(group: str, name: str) -> None:
    """Its first comment is the line of help."""
    lines = (CONF / group / f"{name}.yaml").read_text().splitlines()
    line = next(line for line in lines if not line.startswith("# @package"))
    assert line.startswith("# ") and len(line) > 10


def flags_of(name: str) -> frozenset[str]:
    """All of a strategy that the rules across groups look at."""
    flags = ("needs_boundaries", "needs_classes", "needs_logits")
    return frozenset(f for f in flags for target in targets(composed(f"strategy={name}")["strategy"]) if class_flag(target, f))


OWN = """
import cl_bench.strategies.ewc as e
from cl_bench.strategies import mas
from cl_bench.strategies.ewc import EWC
from torch import *

class Named(EWC): pass
class EWC(EWC): pass
class Dotted(mas.MAS): pass
class Aliased(e.EWC): pass
class Told(e.EWC): needs_boundaries = False
class Unseen(Unseen): pass
"""


@pytest.mark.parametrize(
    ("name", "needed"), [("Named", True), ("EWC", True), ("Dotted", True), ("Aliased", True), ("Told", False), ("Unseen", False)]
)
def test_a_class_of_the_users_has_the_flags_of_its_base(name: str, needed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_flags.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    assert class_flag(f"own_flags.{name}", "needs_boundaries") is needed


@pytest.mark.parametrize("name", sorted({flags_of(name): name for name in choices("strategy")}.values()))
@pytest.mark.parametrize("group", ["scenario", "objective"])
def test_strategies_bind_beside_every_choice(group: str, name: str) -> None:
    for choice in choices(group):
        more = ["data=toy"] if choice == "toy" else ["scenario=text"] if (group, choice) in TEXT else []
        found = problems(composed(f"strategy={name}", f"{group}={choice}", *more))
        if "scenario=text" in (f"{group}={choice}", *more) and name in NEED_CLASSES:
            assert len(found) == 1 and "works on classes" in found[0]
        elif group == "objective" and choice in UNLABELLED and name in NEED_LOGITS:
            assert len(found) == 1 and "has none; use sequential" in found[0]
        else:
            assert [text for text in found if "gaussian" not in choice or "needs task boundaries" not in text] == [], choice


@pytest.mark.parametrize("group", [g for g in NODES if g not in ("model", "probe")])
def test_builds(group: str) -> None:
    for name in choices(group):
        config = composed(f"{group}={name}", *{"toy": ["data=toy"], "folder": ["data.root=."]}.get(name, []))
        assert build(config[group], config["runtime"]["allow_targets"]) is not None


@pytest.mark.parametrize("name", choices("probe"))
def test_builds_probe(name: str) -> None:
    config = composed(f"probe=[{name}]")
    (probe,) = build(config["probe"], config["runtime"]["allow_targets"]).values()
    assert callable(probe)


@pytest.mark.parametrize("name", choices("train"))
def test_builds_train(name: str) -> None:
    config = composed(f"train={name}")
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = build(config["train"]["optimizer"], config["runtime"]["allow_targets"])([weight])
    schedule = build(config["train"]["schedule"], config["runtime"]["allow_targets"])
    assert isinstance(optimizer, torch.optim.Optimizer) and 0 <= schedule(0, 10, 0) <= 1


@pytest.mark.parametrize(
    "name", [name for name in choices("model") if ("model", name) not in TEXT and not name.startswith("clip_")]
)  # test_clip.py
def test_builds_model(name: str) -> None:
    """At the size of small pictures; the widest only as shapes."""
    config = composed(f"model={name}")
    node = {k: v for k, v in config["model"].items() if k not in OF_MODEL}
    device = torch.device("meta" if name in COSTLY else "cpu")
    with device, torch.no_grad():
        backbone, dim = build(node, config["runtime"]["allow_targets"], input_shape=(3, 16, 16), pretrained=False)
        assert backbone.eval()(torch.zeros(2, 3, 16, 16)).shape == (2, dim)


@pytest.mark.parametrize("name", [name for name in choices("model") if name.startswith("lm_")])
def test_builds_language_model(name: str) -> None:
    config = composed(f"model={name}")
    node = {k: v for k, v in config["model"].items() if k not in OF_MODEL}
    with torch.device("meta"), torch.no_grad():
        backbone, dim = build(node, config["runtime"]["allow_targets"], input_shape=(9,), vocabulary=40, pretrained=False)
        assert backbone(torch.zeros(2, 8, dtype=torch.int64)).shape == (2, 8, dim)
    if name == "lm_nano":
        assert 0.9e6 < sum(p.numel() for p in backbone.parameters()) < 1.1e6


def test_mistakes_of_a_node_are_named() -> None:
    config = composed("strategy=ewc")
    config["strategy"] |= {"strength": -1, "mode": "onlin", "sample": 3}
    del config["strategy"]["decay"]
    found = " | ".join(problems(config))
    for text in ("strategy.strength=-1", "did you mean online", "strategy.sample is no setting", "strategy.decay is missing"):
        assert text in found


@pytest.mark.parametrize(
    "line", ["strategy=ewcc", "strategy.strengh=1", "train.batch_size=0", "scenario.tasks=3", "look.part=valid", "model.init=no.pth"]
)
def test_the_command_line_refuses(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(["strategy=ewc", line] if "strengh" in line else [line])
    assert "\n" not in str(caught.value) and line.partition("=")[0] in str(caught.value)


def test_no_number_is_decided_outside_conf() -> None:
    """Every setting of a class or function named in conf/ is written there: none has a default in Python."""
    import importlib
    import inspect

    def targets(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["_target_"]} if "_target_" in node else set()
            return own.union(*map(targets, node.values()))
        return set().union(*map(targets, node)) if isinstance(node, list) else set()

    named = set().union(*(targets(yaml.safe_load(file.read_text())) for file in CONF.rglob("*.yaml")))
    ours = sorted(t for t in named if t.startswith("cl_bench."))
    assert len(ours) > 10
    for target in ours:
        module, _, name = target.rpartition(".")
        signature = inspect.signature(getattr(importlib.import_module(module), name))
        assert all(p.default is p.empty for p in signature.parameters.values()), target


def test_conf_is_found() -> None:
    assert Path(CONF).is_dir() and (CONF / "config.yaml").is_file()
