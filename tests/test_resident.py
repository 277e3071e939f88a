"""The file of a decoded set: written once, checked, read by memory map."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from cl_bench.core.types import Examples
from cl_bench.data import resident


def make_pair(seed=0):
    raw = torch.randint(0, 256, (12, 1, 4, 4), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    part = Examples(raw, torch.arange(12) % 3)
    return part, part.take(torch.arange(6))


def load(cache, decode=make_pair, num_classes=3, **settings):
    return resident.load("tiny", settings, cache, decode, num_classes)


def refuse():
    raise AssertionError("decoded twice")


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
def test_truncated_file_is_named(tmp_path, error, keep):
    load(tmp_path)
    [file] = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    message = error(lambda: load(tmp_path, refuse))
    assert str(file) in message and "Delete it" in message


def test_flipped_byte_is_found(tmp_path, error):
    load(tmp_path)
    [file] = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    message = error(lambda: load(tmp_path, refuse))
    assert str(file) in message and "checksum" in message and "Delete it" in message
    file.unlink()
    load(tmp_path)


def test_cache_that_cannot_be_written_says_what_to_set(tmp_path, error):
    (tmp_path / "file").write_text("in the way")
    message = error(lambda: load(tmp_path / "file" / "cache", refuse))
    assert str(tmp_path / "file") in message and "data.root=" in message and "CL_BENCH_DATA" in message


def test_full_disk_leaves_nothing(tmp_path, monkeypatch, error):
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


def test_wrong_number_of_classes(tmp_path, error):
    assert "num_classes=7" in (message := error(lambda: load(tmp_path, num_classes=7))) and "num_classes=3" in message
