"""Mistakes about prompts: one line before training, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_runs import attempt

VIT = "model=vit_femto model.patch_size=3"
MISTAKES = {  # told before training; more of them in process in test_l2p, test_prefixes, test_ranpac
    "strategy=l2p": ["strategy=l2p puts prompts beside the class token and the patch tokens", "has no", "use model=vit_nano"],
    f"strategy=l2p {VIT} strategy.top=11": ["strategy.top=11 is more than the strategy.size=10 prompts", "give a larger pool or fewer"],
    f"strategy=l2p {VIT} strategy.prompt_mask=true": [
        "runs past the pool of strategy.size=10",
        "give strategy.size=15",
        "prompt_mask=false",
    ],
    f"strategy=l2p_jax {VIT} look.batch_size=1": ["is a vote", "look.batch_size=1", "strategy.selection=per_sample"],
    f"strategy=l2p {VIT} strategy.selection=persample": ["strategy.selection=persample", "did you mean per_sample"],
    f"strategy=l2p_r {VIT} strategy.rehearsal.strength=-1": ["strategy.rehearsal.strength=-1", "a number of 0 or more"],
    "strategy=slca strategy.temperature=0": ["strategy.temperature=0", "a number above 0 or null"],
    "strategy=masked probe=[accuracy,prompts]": ["this strategy chooses none", "use strategy=l2p or dualprompt"],
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes(command: str, tmp_path: Path, error) -> None:
    message = error(lambda: attempt(tmp_path / "run", "experiment=smoke", *command.split()))
    assert not [word for word in MISTAKES[command] if word not in message], message
    assert not any(tmp_path.iterdir())


def test_a_vote_says_that_it_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attempt(tmp_path / "run", "experiment=smoke", "strategy=l2p_jax", *VIT.split(), "train=adam", "train.epochs=null", "train.steps=1")
    assert "leaks into the accuracy; report selection=per_sample beside it" in capsys.readouterr().out
