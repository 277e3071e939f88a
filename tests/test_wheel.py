"""The wheel in an environment of its own, outside of the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from programs import run

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_installed_wheel_runs_from_any_folder(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if name.startswith("cl_bench/conf/")}
    assert shipped == {f"cl_bench/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    venv.create(tmp_path / "env", with_pip=False)
    (packages,) = (tmp_path / "env/lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)  # what pip does with a wheel of pure Python
    (packages / "zz_heavy.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")  # the rest from here, behind our own
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    python = str(tmp_path / "env/bin/python")
    where = subprocess.run([python, "-c", "import cl_bench; print(cl_bench.__file__)"], cwd=elsewhere, capture_output=True, text=True)
    assert where.stdout.strip() == str(packages / "cl_bench/__init__.py")
    status, _, err = run(elsewhere, "experiment=smoke", python=python)
    assert (status, err) == (0, "")
    folder = elsewhere / "outputs/toy_toy/mlp/supervised_sequential/smoke/seed0"
    assert json.loads((folder / "provenance.json").read_text())["cl_bench"]
    assert all((folder / f"{kind}_class_il.csv").exists() for kind in ("accuracy", "forgetting"))
