"""model.init=<file>: all of the backbone or nothing, whatever the file is wrapped in."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from programs import one_line, run, seeds
from safetensors.torch import save_file
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.models.mlp import mlp
from cl_bench.models.timm_models import resnet_cifar, vit
from cl_bench.models.weights_file import ABOUT, load_weights

State = dict[str, Tensor]
HERE = {"model": "mlp", "settings": {"hidden": [3]}, "input": [1, 2, 2]}


def backbone(*hidden: int, batch_norm: bool = False) -> nn.Module:
    return mlp(input_shape=(1, 2, 2), hidden=list(hidden), batch_norm=batch_norm, pretrained=False)[0]


def small_vit(size: int = 8, depth: int = 2) -> nn.Module:
    settings = {"name": "vit_tiny_patch16_224", "patch_size": 4, "width": 12, "depth": depth, "heads": 3}
    return vit(input_shape=(1, size, size), pretrained=False, **settings)[0]


def small_resnet(groups: int | None = 2) -> nn.Module:
    return resnet_cifar(input_shape=(1, 8, 8), width=4, blocks=[1, 1, 1, 1], groups=groups, pretrained=False)[0]


def with_names(state: State, prefix: str) -> State:
    return {prefix + k: v for k, v in state.items()}


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def refused(own: nn.Module, path: Path, here: dict = HERE) -> str:
    """The message; nothing of the backbone may have changed."""
    before = {k: v.clone() for k, v in own.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        load_weights(own, path, here)
    assert equal(own.state_dict(), before)
    message = str(caught.value)
    assert f"model.init={path} does not fit this backbone" in message and "give a file saved from this model" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "_orig_mod.", "module._orig_mod.backbone."])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_wrapped_files_fill_all(prefix: str, container: str | None, tmp_path: Path) -> None:
    given, own, path = backbone(3, 2), backbone(3, 2), tmp_path / "w.pth"
    state = with_names(given.state_dict(), prefix) | {"head.weight": torch.zeros(5, 2), "head.bias": torch.zeros(5)}
    torch.save({container: state, "epoch": 3} if container else state, path)
    told = load_weights(own, path, HERE)
    assert equal(own.state_dict(), given.state_dict())
    assert told["loaded"] == 4 and told["ignored"] == ["head.weight", "head.bias"]
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["text"] == "weights: 4 tensors from w.pth, ignoring head.weight, head.bias"


def test_many_ignored_tensors_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(backbone(3).state_dict() | {f"decoder.{i:02}": torch.zeros(1) for i in range(14)}, path)
    assert load_weights(backbone(3), path, HERE)["ignored"] == [*(f"decoder.{i:02}" for i in range(10)), "and 4 more"]


def test_a_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(backbone(3).state_dict(), path)
    assert "fills 2 of 8 tensors; missing 3.weight, 3.bias, 5.weight and 3 more)" in refused(backbone(3, 3, 3, 3), path)
    save_file(with_names(backbone(3).state_dict(), "encoder_q."), path)
    assert "fills 0 of 2 tensors; missing 1.weight, 1.bias; the file also has encoder_q.1.bias, encoder_q.1.weight)" in refused(
        backbone(3), path
    )


def test_a_deeper_or_wider_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(backbone(3, 3).state_dict(), path)
    assert "fills 2 of 2 tensors; the file also has 3.bias, 3.weight" in refused(backbone(3), path)
    assert "fills 1 of 4 tensors; shapes differ: 1.weight (3, 4) for (4, 4)" in refused(backbone(4, 3), path)
    save_file(small_vit(depth=3).state_dict(), path)
    assert "the file also has blocks.2." in refused(small_vit(depth=2), path)


def test_positions_of_another_image_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(small_vit(16).state_dict(), path)
    assert "shapes differ: pos_embed (1, 17, 12) for (1, 5, 12)" in refused(small_vit(8), path)
    save_file({k: v for k, v in small_vit().state_dict().items() if k != "pos_embed"}, path)
    assert "missing pos_embed)" in refused(small_vit(), path)


def test_counters_of_batch_norm_may_be_absent(tmp_path: Path) -> None:
    """As in torchvision's files: they say nothing of the weights."""
    given, own, path = backbone(3, batch_norm=True), backbone(3, batch_norm=True), tmp_path / "w.pth"
    torch.save({k: v + 1 for k, v in given.state_dict().items() if "num_batches" not in k}, path)
    assert load_weights(own, path, HERE)["loaded"] == 6
    assert torch.equal(own.state_dict()["3.running_mean"], torch.ones(3))


def test_two_models_in_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(with_names(backbone(3).state_dict(), "model.") | with_names(backbone(3).state_dict(), "module."), path)
    with pytest.raises(ConfigError, match=r"holds 1\.weight twice"):
        load_weights(backbone(3), path, HERE)


def saved(own: nn.Module, path: Path, **changes) -> Path:
    about = {**HERE, "model": "vit_nano", "settings": {"width": 12, "heads": 3}, "input": [1, 16, 16], "step": 7, **changes}
    save_file(own.state_dict(), path, metadata={ABOUT: json.dumps(about)})
    return path


def test_a_file_of_ours_says_what_it_was_saved_from(tmp_path: Path) -> None:
    here = {"model": "vit_pico", "settings": {"width": 12, "heads": 3}, "input": [1, 8, 8]}
    path = saved(small_vit(16), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError) as caught:
        load_weights(small_vit(8), path, here)
    assert "pos_embed (1, 17, 12) for (1, 5, 12); it was saved from vit_nano at 16 x 16 x 1, and this is vit_pico at 8 x 8 x 1)" in str(
        caught.value
    )
    told = load_weights(small_vit(16), path, here)  # another name alone is no harm
    assert told["text"].endswith("tensors from w.safetensors (vit_nano at 16 x 16 x 1, step 7)")


def test_another_number_of_heads_is_refused(tmp_path: Path) -> None:
    """It fits by shape, and would compute something else."""
    path = saved(small_vit(16), tmp_path / "w.safetensors", settings={"width": 12, "heads": 2})
    with pytest.raises(ConfigError, match=r"it was saved with model\.heads=2"):
        load_weights(small_vit(16), path, {"model": "vit_nano", "settings": {"heads": 3}, "input": [1, 16, 16]})


VIT = {"model": "vit_nano", "settings": {"heads": 3}, "input": [1, 8, 8]}
RESNET = {"model": "resnet_gn_w8", "settings": {"groups": 2}, "input": [1, 8, 8]}


@pytest.mark.parametrize(("given", "own"), [(VIT, RESNET), (RESNET, VIT)], ids=["vit to resnet", "resnet to vit"])
def test_another_architecture_is_refused(given: dict, own: dict, tmp_path: Path) -> None:
    """Each has a setting that the other lacks."""
    make = {"vit_nano": small_vit, "resnet_gn_w8": small_resnet}
    path = saved(make[given["model"]](), tmp_path / "w.safetensors", **given)
    message = refused(make[own["model"]](), path, own)
    assert "(it fills 0 of " in message and "it was saved with" not in message
    assert f"it was saved from {given['model']} at 8 x 8 x 1, and this is {own['model']} at 8 x 8 x 1)" in message
    assert message.endswith("or choose the model it was saved from")


def test_another_norm_is_refused(tmp_path: Path) -> None:
    path = saved(small_resnet(None), tmp_path / "w.safetensors", settings={"groups": None})
    assert "it was saved with model.groups=null; " in refused(small_resnet(), path, RESNET)


class Code:
    """A pickle that would run a program."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def bad_weights(tmp_path: Path) -> dict[str, Path]:
    """Files that are no weights of the smoke run's backbone."""
    folder = tmp_path / "weights"
    folder.mkdir()
    files = {name: folder / name for name in ("cut.safetensors", "other.safetensors", "cut.pth", "code.pth")}
    save_file({"a": torch.zeros(1000)}, files["cut.safetensors"])
    files["cut.safetensors"].write_bytes(files["cut.safetensors"].read_bytes()[:500])
    save_file({"a": torch.zeros(10)}, files["other.safetensors"])
    torch.save({"a": torch.zeros(1000)}, files["cut.pth"])
    files["cut.pth"].write_bytes(files["cut.pth"].read_bytes()[:900])
    files["code.pth"].write_bytes(pickle.dumps(Code(tmp_path / "ran")))
    return files


def test_unreadable_weights(bad_weights: dict[str, Path], tmp_path: Path) -> None:
    """All four in one sweep: each is told, in one line, and none leaves a folder."""
    listed = ",".join(str(file) for file in bad_weights.values())
    outcome = run(tmp_path, "-m", "experiment=smoke", f"model.init={listed}")
    one_line(
        outcome, "4 of 4 runs failed", *map(str, bad_weights.values()), "truncated", "a pickle with code", "does not fit this backbone"
    )
    assert not (tmp_path / "ran").exists() and not seeds(tmp_path)
