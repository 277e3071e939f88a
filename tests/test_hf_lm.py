"""Language models of Hugging Face's: a tiny one made here, beside transformers' own answers. Runs where transformers is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning_fabric import Fabric

from cl_bench.checks import problems
from cl_bench.core.errors import ConfigError
from cl_bench.models.hf_lm import hf_lm
from cl_bench.overrides import CONF
from cl_bench.resolve import resolve
from cl_bench.run import make_learner, make_stream

VOCABULARY, LENGTH = 300, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("hf") / "tiny"
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.GPTNeoXConfig(vocab_size=VOCABULARY, max_position_embeddings=LENGTH, **sizes)
    torch.manual_seed(0)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(path)
    return path


def test_starts_with_the_models_own_answers(folder: Path, tmp_path: Path) -> None:
    """Through the config, on bytes: 256 of its 300 tokens."""
    import transformers

    (tmp_path / "a.txt").write_text("a text of some length, " * 20)
    (tmp_path / "b.txt").write_text("another text of some length, " * 20)
    overrides = ["scenario=text", "scenario.datasets=[text]", "data=text", f"data.root={tmp_path}", f"data.length={LENGTH}"]
    overrides += ["model=hf_lm", f"model.name={folder}", "data.test_fraction=0.5", f"data.cache={tmp_path}/cache"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("config", overrides=overrides), [CONF], named=False)
    assert problems(config) == []
    _, stream = make_stream(config)
    learner, weights = make_learner({**config, "name": {"model": "hf_lm"}}, stream, Fabric(accelerator="cpu", devices=1))
    tokens = stream.experiences[0].train.raw[:3, :-1].long()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(input_ids=tokens).logits[..., :256]
        assert torch.allclose(learner.network.eval()(tokens), expected, atol=1e-5)
    assert weights["sha256"]
    assert sum("readout" in name for name, _ in learner.network.named_parameters()) == 0


def test_scratch_is_drawn_anew(folder: Path) -> None:
    made = [hf_lm(input_shape=(LENGTH + 1,), vocabulary=256, pretrained=p, name=str(folder))[0] for p in (True, True, False)]
    first, again, scratch = (next(iter(m.parameters())) for m in made)
    assert torch.equal(first, again) and not torch.equal(first, scratch)


@pytest.mark.parametrize(
    ("shape", "vocabulary", "name", "words"),
    [
        (LENGTH + 2, 256, None, f"data.length={LENGTH + 1}, but"),
        (LENGTH + 1, VOCABULARY + 1, None, "set data.tokenizer to the model's tokenizer.json"),
        (LENGTH + 1, 256, "/nowhere/model", "cannot be had"),
    ],
)
def test_refuses(folder: Path, shape: int, vocabulary: int, name: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        hf_lm(input_shape=(shape,), vocabulary=vocabulary, pretrained=True, name=name or str(folder))


def test_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'cl-bench\[text\]'"):
        hf_lm(input_shape=(9,), vocabulary=4, pretrained=False, name="x")
