"""Each mistake through the real command line: one line on stderr, status 2, nothing left behind."""

from __future__ import annotations

import errno
import os
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from programs import one_line, run, seeds

from cl_bench.mistakes import about

MISTAKES = {  # command -> words of the message
    "strategy=ewcc": ["strategy=ewcc", "did you mean ewc", "sequential"],
    "modle=mlp": ["modle", "did you mean model"],
    "sed=1": ["sed", "did you mean seed"],
    "strategy=ewc strategy.strenght=1": ["strategy.strenght", "did you mean strategy.strength"],
    "strategy.strenght=1 train.foo=2": ["2 mistakes", "strategy.strenght", "train.foo", "train.epochs"],
    "seed=abc": ["seed=abc", "a whole number of 0 or more"],
    "train.batch_size=0": ["train.batch_size=0", "1 or more"],
    "train.epochs=null": ["train.epochs=null", "train.steps=null"],
    "train.optimizer=3": ["train.optimizer=3", "_target_"],
    "strategy=ewc strategy.strength=abc": ["strategy.strength=abc", "a number of 0 or more"],
    "model.hidden=400": ["model.hidden=400", "a list"],
    "scenario.tasks=3": ["scenario.tasks=3", "does not divide 10 classes", "[1, 2, 5, 10]"],
    "scenario.tasks=[3,3,3]": ["adds up to 9", "10 classes"],
    "strategy=ewc scenario.announced=false": ["EWC needs task boundaries", "strategy=er", "scenario.announced=true"],
    "model.init=/nowhere.pth": ["model.init=/nowhere.pth", "scratch", "pretrained"],
    "experiment=scale/split_cifar10 offline=true row=scratc": [
        "row=scratc",
        "no rows.scratc;",
        "did you mean scratch?",
        "scratch, pretrained, stopped",
    ],
    "experiment=scale/split_cifar10 twin=bogus": [
        "twin=bogus is not allowed: there is no twins.bogus; give another; allowed: paper, offline"
    ],
    "train.batch_size=${look.size}": ["train.batch_size=${look.size} is not", "no look.size;", "did you mean batch_size?"],
    "train.batch_size=${.step}": ["train.batch_size=${.step} is not", "'step' not found; correct it"],
    "probe.cka.layers=[${rows.foo}] experiment=scale/overlap": [
        "probe.cka.layers[0]=${rows.foo} is not",
        "no rows.foo;",
        "scratch, pretrained",
    ],
    "scenario=sequence scenario.datasets=[digit]": ["digit", "did you mean digits"],
    "strategy=ewcc sed=1 train.batch_size=0 model.init=/x.pth": ["4 mistakes", "ewcc", "sed=1", "train.batch_size=0", "/x.pth"],
    "experiment=smok": ["experiment=smok", "did you mean smoke", "demo"],
    "-m seed=0,abc": ["seed=abc"],
    "-m strategy=ewc,erx seed=0,1": ["strategy=erx", "did you mean er"],
    "seed=0,1": ["seed=0,1", "add -m"],
    "-m seed=0,,1": ["seed=0,,1", "key=value"],
    "-m seed=[0": ["key=value"],
    "seed": ["seed", "key=value"],
    "=3": ["=3", "key=value"],
    "--foo": ["--foo", "--help"],
    "--config-dir /nowhere": ["/nowhere", "--config-dir"],
    "--config-name foo": ["--config-dir"],
    "~seed": ["~seed", "cannot be removed"],
    "+foo=1": ["+foo=1"],
    "strategy=null": ["strategy=", "sequential"],
    "tag=../x": ["tag=../x", "folder name"],
    "runtime.device=gpuu": ["runtime.device=gpuu", "cuda"],
    "strategy._target_=os.system": ["os.system", "not allowed to be called", "cl_bench."],
    "hydra/launcher=jobib": ["jobib", "did you mean joblib"],
    "-m hydra/launcher=ray seed=0,1": ["ray", "pip install 'cl-bench[ray]'"],
    "-m hydra/launcher=submitit_slurm seed=0,1": ["submitit_slurm", "no Slurm", "joblib"],
    "train.optimizer.lr=-1": ["train.optimizer.lr=-1", "a number of 0 or more"],
    "train.optimizer.lr=fast": ["train.optimizer.lr=fast", "a number of 0 or more"],
    "train.optimizer.lr=null train.optimizer.momentum=x": ["2 mistakes", "train.optimizer.lr=<", "train.optimizer.momentum=x"],
    "train.optimizer._target_=torch.optim.SGDD": ["torch.optim.SGDD", "did you mean SGD"],
    "+train.optimizer.momentm=1": ["train.optimizer.momentm", "did you mean momentum"],
    "strategy=ewc strategy.estimator=exat": ["give one of exact", "(did you mean exact?)"],
    "model.image_size=abc": ["model.image_size=abc", "a whole number of 1 or more or null"],
    "model.channels=2": ["model.channels=2", "one of 1, 3 or null"],
    "scenario.tasks=null": ["set scenario.tasks=<a whole number"],
    "scenario.valid_fraction=1.0": ["scenario.valid_fraction=1.0", "less than 1"],
    "scenario=sequence scenario.datasets=[]": ["scenario.datasets=[]", "a list of names"],
    "scenario=sequence scenario.datasets=digits": ["scenario.datasets=digits", "a list of names"],
    "scenario=sequence scenario.datasets=[digits,digits]": ["scenario.datasets=[digits,digits]", "each once"],
    "data.test_fraction=2": ["data.test_fraction=2", "above 0 and below 1"],
    "data=folder": ["set data.root=<"],
    "data=folder data.root=/nowhere": ["data.root=/nowhere", "a folder that exists"],
    "runtime.outputs=/dev/null": ["/dev/null", "a file stands where a folder should", "runtime.outputs=<"],
    "scenario=null": ["scenario=null is not known", "permuted"],
    "strategy=er_ewc +strategy.parts.x=3 scenario.announced=false": ["EWC needs task boundaries"],
    "objective=simsiam probe=[accuracy,knn]": ["probe.accuracy reads logits", "SimSiam has none", "probe=[knn]"],
    "objective=barlow_twins train.batch_size=1": ["train.batch_size=1", "BarlowTwins", "give 2 or more"],
    "objective=simsiam strategy=ewc": ["EWC works on logits", "SimSiam has none", "lump"],
    "objective=simsiam strategy=er_balanced": ["strategy.memory=balanced goes by labels"],
    "objective=simsiam strategy=er_ewc ~strategy.parts.ewc strategy.parts.er.memory=balanced": [
        "strategy.parts.er.memory=balanced goes by"
    ],
    "runtime.allow_targets=null": ["runtime.allow_targets", "a list"],
    "runtime.allow_targets=c strategy._target_=copy.copy": ["runtime.allow_targets=c", "a list"],
    "scenario.tasks=[[1,2],3]": ["scenario.tasks=[[1, 2], 3]", "a whole number"],
    "model.hidden.x=2": ["model.hidden.x=2"],
    "model.hidden=[0]": ["model.hidden=[0]", "of each a whole number of 1 or more"],
    "train.epochs=true": ["train.epochs=true", "a whole number of 1 or more"],
    "tag=null": ["tag=null", "folder name"],
    "folder=/x name.seed=9": ["2 mistakes", "folder=/x", "name.seed=9", "tag=<name>"],
    "runtime.outputs=": ["runtime.outputs=", "names no folder"],
    "data=folder data.root=~/nowhere_at_all": ["/nowhere_at_all", "a folder that exists"],
    "probe=loss": ["probe.accuracy", "probe=[accuracy,loss]"],
    "~probe.accuracy": ["probe.accuracy", "probe=[accuracy]"],
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_of_the_configuration(command: str, tmp_path: Path) -> None:
    if "launcher=ray" in command and find_spec("ray"):
        pytest.skip("ray is installed")
    began = os.times()
    one_line(run(tmp_path, *command.split()), *MISTAKES[command])
    spent = os.times()
    assert spent.children_user - began.children_user < 2  # of the processor: other tests run beside this one
    assert not any(tmp_path.iterdir())


LATE = {  # told by libraries, or by the data, after they are imported
    "objective=simsiam train.batch_size=8": ["probe.knn.k=200", "probe.knn.k_rule=cap"],
    "objective=simsiam data.size=1 probe.knn.k=2": ["view.scale=[0.2, 1.0]", "1 x 1 pixels"],
    "view=clip": ["the view gives images of 3 channels and the model takes 1", "model.channels=3"],
    "train=adam +train.optimizer.betas=[2,3]": ["torch.optim.Adam", "betas=[2, 3]", "correct"],
    "model=vit_nano model.heads=5": ["model.heads=5", "divide the width"],
    "scenario.valid_fraction=0.99": ["task0", "no training examples", "scenario.valid_fraction"],
    "-m hydra/launcher=joblib hydra.launcher.n_jobs=0 seed=0,1": ["launcher", "n_jobs == 0"],
    "strategy=er_ewc strategy.parts=3": ["parts=3", "correct"],
    "model=mlp_bn train.batch_size=1": ["train.batch_size=1", "give 2 or more"],
    "strategy=er strategy.memory_size=100000000000": ["not enough memory", "give a smaller model"],
}


@pytest.mark.parametrize("command", LATE)
def test_mistakes_that_libraries_find(command: str, tmp_path: Path) -> None:
    one_line(run(tmp_path, "experiment=smoke", *command.split()), *LATE[command])
    assert not seeds(tmp_path)


def test_a_setting_hides_what_is_internal(tmp_path: Path) -> None:
    outcome = run(tmp_path, "train.optimizer.lrr=1")
    one_line(outcome, "train.optimizer.lrr", "did you mean train.optimizer.lr")
    assert "_partial_" not in outcome[2]


def test_failures_of_one_kind_are_told_once(tmp_path: Path) -> None:
    outcome = run(tmp_path, "-m", "experiment=smoke", "seed=0,1", "train.optimizer.lr=1e30")
    one_line(outcome, "2 of 2 runs failed", "(and 1 more of this kind)")
    assert outcome[2].count("loss is") == 1


def test_pretrained_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    began = time.time()
    one_line(run(tmp_path, "experiment=smoke", "model=vit_nano", "model.init=pretrained"), "model.init=scratch", "model.init=<file>")
    assert not seeds(tmp_path) and time.time() - began < 30  # the hub's client alone tries for a minute


def test_mixed_precision_says_nothing_on_stderr(tmp_path: Path) -> None:
    assert run(tmp_path, "experiment=smoke", "runtime.precision=bf16-mixed")[::2] == (0, "")


@pytest.mark.parametrize(
    ("number", "words"),
    [("ENOSPC", "free some room"), ("EROFS", "another folder"), ("EACCES", "another folder"), ("ENOENT", "does not exist")],
)
def test_an_error_of_the_system_says_what_to_do(number: str, words: str) -> None:
    code = getattr(errno, number)
    line = about(OSError(code, os.strerror(code), "x.pt"), "runtime.outputs")
    assert line.startswith("x.pt: ") and words in line and "runtime.outputs=<folder>" in line


def test_outputs_under_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    one_line(run(tmp_path, "experiment=smoke", "runtime.outputs=file/out"), "file/out", "runtime.outputs=")
    one_line(run(tmp_path, "-m", "experiment=smoke", "runtime.outputs=file/out"), "file/out")
    assert (tmp_path / "file").read_text() == "mine"


def test_data_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("CL_BENCH_DATA", str(tmp_path / "data"))
    one_line(run(tmp_path, "data=cifar10"), "cifar-10-batches-py", str(tmp_path / "data"), "Three ways", "data.root=")
    assert not seeds(tmp_path)


def test_loss_that_is_not_finite(tmp_path: Path) -> None:
    """Before the first save nothing is left, so that the advised change can run; after it the save stays."""
    words = ("task0", "epoch 1", "step ", "train.optimizer.lr")
    wild = ("experiment=smoke", "train.optimizer.lr=1e30")
    one_line(run(tmp_path, *wild), *words)
    assert not seeds(tmp_path) and not list((tmp_path / "outputs").glob("*_*"))
    one_line(run(tmp_path, *wild, "runtime.save_seconds=0"), *words, "last good save is kept", "tag=")
    (folder,) = seeds(tmp_path)
    assert (folder / "checkpoint.pt").exists() and not (folder / "summary.csv").exists()


def test_answers_that_are_not_finite(tmp_path: Path) -> None:
    """Weights that blow up in the very last step are seen by no loss."""
    last = ("experiment=smoke", "scenario.tasks=1", "train.epochs=null", "train.steps=1", "train.optimizer.lr=1e38", "train.clip=null")
    one_line(run(tmp_path, *last), "not finite", "train.optimizer.lr")
    assert not seeds(tmp_path)


@pytest.mark.parametrize("name", ["config.yaml", "checkpoint.pt"])
def test_damaged_run_folder_is_kept(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "outputs/toy_toy/mlp/supervised_sequential/smoke/seed0"
    folder.mkdir(parents=True)
    (folder / name).write_text("a: [b")
    one_line(run(tmp_path, "experiment=smoke"), str(Path(*folder.parts[-6:]) / name), "damaged")
    assert (folder / name).read_text() == "a: [b"
