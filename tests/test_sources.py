"""Each data set's YAML binds to its source."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "conf" / "data").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_yaml_binds_and_expands_home(source, name):
    made = source(name, "~/somewhere", **({"root": "~"} if name in ("folder", "text") else {}))
    assert made.name == name
    assert getattr(made, "cache", expected := Path.home() / "somewhere" / "cache") == expected  # or made in memory


def test_unknown_kind(tmp_path, source, error):
    assert "CIFAR100" in error(lambda: source("mnist", tmp_path, kind="CIFAR1000"))
