"""config -> objects -> loop -> run folder; the only file that knows all rooms."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from cl_bench.backbones import Backbones
from cl_bench.build import build
from cl_bench.checks import OF_MODEL
from cl_bench.core.errors import ConfigError, DivergenceError, RunError
from cl_bench.core.learner import Learner, Network
from cl_bench.core.seeds import fold, reseed_global
from cl_bench.core.stop import Stop
from cl_bench.core.types import Examples, Stream
from cl_bench.data.resident import Dataset
from cl_bench.data.texts import share_bpe
from cl_bench.data.views import ChannelsLast, Resized
from cl_bench.folder import RunFolder, digest
from cl_bench.loop import Looks, Plan, Saver, run
from cl_bench.match import Match
from cl_bench.mistakes import first_line
from cl_bench.models.weights_file import load_weights
from cl_bench.probes.moment import MomentProbe
from cl_bench.progress import Progress
from cl_bench.provenance import provenance

Config = Mapping[str, Any]


def execute(config: Config, folder: RunFolder, stop: Stop) -> None:
    """Train, look, write the folder. Nothing is on disk before all is built, nor after a failure before the first save."""
    progress = Progress(folder.path / "run.log", config["runtime"]["progress"])  # its clock runs from here
    try:
        _execute(config, folder, stop, progress)
    except DivergenceError as error:
        if folder.checkpoint.exists():
            raise DivergenceError(f"{error}; the last good save is kept, so give the changed run a tag=<name>") from error
        folder.discard()
        raise
    except Exception as error:
        folder.discard()
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise RunError(
                f"there is not enough memory ({first_line(error)[-160:]}); give a smaller model, train.batch_size, look.batch_size "
                "or memory of examples"
            ) from error
        raise
    finally:
        folder.release()


def _execute(config: Config, folder: RunFolder, stop: Stop, progress: Progress) -> None:
    runtime = config["runtime"]
    fabric = make_fabric(runtime)
    datasets, original = make_stream(config)
    strategy = build(config["strategy"], runtime["allow_targets"])
    stream = strategy.arrange(original, config["seed"])
    learner, weights = make_learner(config, stream, fabric)
    first = stream.experiences[0].train.raw[:1].to(fabric.device)
    seen = learner.view(first, torch.Generator(fabric.device))  # a view says itself what images it cannot take
    wanted = input_shape(config["model"], stream)[0]
    if not stream.is_text and seen.shape[1] != wanted:
        raise ConfigError(
            f"the view gives images of {seen.shape[1]} channels and the model takes {wanted}; "
            f"set model.channels={seen.shape[1]}, or give view.mean and view.std one number"
        )
    strategy.prepare(learner, stream)
    plan = Plan(**{key: config["train"][key] for key in ("batch_size", "epochs", "steps", "renew_optimizer")})
    looks = make_looks(config, learner, original)
    data_sums = {d.name: d.checksum for d in datasets} | {f"tokenizer of {d.name}": t for d in datasets for t in d.tokenizer}
    totals = [plan.total(e) * strategy.learns(e) for e in stream.experiences]
    about = {**origin(config, stream), "data": data_sums, "config": digest(config)}
    backbones = Backbones(folder.path, runtime["save_backbone"], about, totals[0], sum(totals))
    folder.claim(config)
    progress.say(f"{folder.path}: {'resuming' if folder.checkpoint.exists() else 'starting'}")
    for d in datasets:
        if d.class_names:
            progress.say(f"{d.name}: {d.num_classes} classes, by label: {' '.join(d.class_names)}")
    progress.say(str(stream))
    parameters = sum(p.numel() for p in learner.network.parameters())
    progress.say(f"{config['name']['model']}: {parameters:,} parameters; {weights['text']}")
    for line in strategy.remarks:
        progress.say(line)
    saver = Saver(folder, f"{data_sums} {weights['sha256']}", runtime["save_seconds"], stop, backbones)
    run(learner, strategy, stream, plan, looks, saver, progress)
    backbones.finish(learner)
    costs = progress.costs(fabric.device)
    tests = {name: test.task for name, test in original.tests.items()}
    looks_after = [e.index for e in original.experiences if e.looked]
    folder.finish(tests, looks_after, provenance(data_sums, original, weights, parameters, costs, fabric))


def make_fabric(runtime: Config) -> Fabric:
    """Device and precision."""
    if runtime["threads"]:
        torch.set_num_threads(runtime["threads"])
    compiler = (os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")).split()[0]  # as torch chooses
    if runtime["compile"] and not shutil.which(compiler):
        raise ConfigError(
            f"runtime.compile=true needs a C++ compiler, and {compiler} is not here; "
            "install it, name another in the environment variable CXX, or give runtime.compile=false"
        )
    try:
        return Fabric(accelerator=runtime["device"], devices=1, precision=runtime["precision"])
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"runtime.device={runtime['device']} is not on this machine ({error}); give auto or cpu") from error


def make_looks(config: Config, learner: Learner, stream: Stream) -> Looks:
    """The probes, ready, and the examples that they look at."""
    look, size = config["look"], config["look"]["batch_size"]
    probes = build(config["probe"], config["runtime"]["allow_targets"])
    match, within = Match(config.get("match"), size), look["within"] or ()
    looks = Looks(held_out(stream, look["part"]), probes, look["future"], look["before"], size, match, within)
    for probe in probes.values():
        if isinstance(probe, MomentProbe):
            probe.prepare(learner, stream, looks.held_out)
    return looks


def make_stream(config: Config) -> tuple[list[Dataset], Stream]:
    """The data sets and the tasks cut from them."""
    allow = config["runtime"]["allow_targets"]
    scenario = build(config["scenario"], allow)
    if "datasets" in config:
        sources = {name: build(node, allow) for name, node in config["datasets"].items()}
        share_bpe(list(sources.values()))
        several = {name: source() for name, source in sources.items()}
        return list(several.values()), scenario(several)
    dataset = build(config["data"], allow)()
    return [dataset], scenario(dataset)


def make_learner(config: Config, stream: Stream, fabric: Fabric) -> tuple[Learner, dict[str, Any]]:
    """Network with its first weights, and everything a step needs."""
    allow, model, train = config["runtime"]["allow_targets"], config["model"], config["train"]
    shape, given = input_shape(model, stream), {"vocabulary": stream.num_classes} if stream.is_text else {}
    reseed_global(fold(config["seed"], "initial weights"))
    node = {k: v for k, v in model.items() if k not in OF_MODEL}
    objective = build(config["objective"], allow)
    backbone, dim = build(node, allow, input_shape=shape, pretrained=model["init"] == "pretrained", **given)
    weights: dict[str, Any] = {"init": str(model["init"]), "sha256": None, "loaded": 0, "ignored": [], "text": f"weights: {model['init']}"}
    if model["init"] not in ("scratch", "pretrained"):
        weights |= load_weights(backbone, Path(model["init"]).expanduser(), origin(config, stream))
    elif model["init"] == "pretrained":
        tensors = (t.detach().contiguous().view(-1).view(torch.uint8).numpy() for t in backbone.state_dict().values())
        weights["sha256"] = hashlib.sha256(b"".join(t.tobytes() for t in tensors)).hexdigest()
        weights["loaded"] = None  # timm does not tell, and a small stem is ours
    head = objective.head(dim, stream.num_classes)
    objective.begin(head, backbone, stream)
    view = build(config["view"], allow)
    if model["image_size"] is not None or model["channels"] is not None:
        view = Resized(view, model["channels"], model["image_size"])
    if config["runtime"]["channels_last"]:
        view = ChannelsLast(view)
    dtype = torch.float64 if config["runtime"]["precision"] == "64-true" else torch.float32
    torch.set_default_dtype(dtype)
    learner = Learner(
        network=Network(backbone, head).to(fabric.device, dtype),
        objective=objective,
        view=view,
        make_optimizer=build(train["optimizer"], allow),
        backbone_rate=train["backbone_rate"],
        schedule=build(train["schedule"], allow),
        clip=train["clip"],
        batch_norm=train["batch_norm"],
        fabric=fabric,
        seed=config["seed"],
    )
    if config["runtime"]["compile"]:
        torch.compiler.reset()  # networks of a sweep's earlier runs count against its limit, beyond which nothing is compiled
        learner.taught = torch.compile(learner.network)  # type: ignore[assignment]
    if train["batch_size"] == 1 and train["batch_norm"] == "train" and any(isinstance(m, torch.nn.BatchNorm1d) for m in backbone.modules()):
        raise ConfigError(
            "train.batch_size=1: this model's batch norm needs two examples or more; give 2 or more, or train.batch_norm=frozen"
        )
    masks = objective.masks(stream)
    learner.masks = None if masks is None else masks.to(fabric.device)
    return learner, weights


def input_shape(model: Config, stream: Stream) -> tuple[int, ...]:
    """[C, H, W] that the network sees; [length] of text."""
    if stream.is_text:
        return stream.input_shape
    channels, height, width = stream.input_shape
    size = model["image_size"]
    return model["channels"] or channels, size or height, size or width


def origin(config: Config, stream: Stream) -> dict[str, Any]:
    """What a backbone is: its name, its settings, its input."""
    settings = {k: v for k, v in config["model"].items() if k not in OF_MODEL}
    return {"model": config["name"]["model"], "settings": settings, "input": list(input_shape(config["model"], stream))}


def held_out(stream: Stream, part: str) -> dict[str, Examples]:
    """What probes look at: test examples, or those held out of training, for choosing settings."""
    if part == "test":
        return {name: test.data for name, test in stream.tests.items()}
    valid = {e.index: e.valid for e in stream.experiences}
    chosen = {name: valid[test.task] if test.valid is None else test.valid for name, test in stream.tests.items()}
    empty = [name for name, examples in chosen.items() if examples is None]
    if empty:
        raise ConfigError(f"look.part=valid: {', '.join(empty)} has no held-out examples; raise scenario.valid_fraction")
    return {name: examples for name, examples in chosen.items() if examples is not None}
