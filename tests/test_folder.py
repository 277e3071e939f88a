"""Run folders: what is kept on restart, and what a full disk says."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from cl_bench.core.errors import ConfigError
from cl_bench.folder import RunFolder, named


def test_rows_after_the_last_save_go_and_missing_ones_are_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.cut(0)
    rows = [{"after": k, "on": "a", "metric": "class_il", "value": 0.5} for k in range(4)]
    folder.append(rows)
    folder.cut(3)
    assert folder.read_rows() == rows[:3]
    with pytest.raises(ConfigError, match="lacks rows of the 4"):
        folder.cut(4)
    folder.rows_file.write_bytes(folder.rows_file.read_bytes()[:-5])
    with pytest.raises(ConfigError, match="lacks rows"):
        folder.cut(3)
    folder.cut(0)
    assert folder.read_rows() == []


def test_a_folder_without_a_save_is_discarded_and_one_with_it_stays(tmp_path: Path) -> None:
    for saved in (False, True):
        folder = RunFolder(tmp_path / "outputs/a/b/c/d/seed0")
        folder.claim({"seed": 0})
        if saved:
            folder.checkpoint.touch()
        folder.discard()
        assert folder.path.exists() == saved
        folder.release()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_names_the_file() -> None:
    path = Path("/dev/full")
    with pytest.raises(OSError, match="/dev/full") as told, named(path), path.open("w") as file:
        file.write("x" * 100_000)
    assert told.value.errno == errno.ENOSPC
