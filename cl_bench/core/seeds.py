"""Every random number comes from (seed, purpose, where we are): nothing to save, nothing to leak."""

from __future__ import annotations

import hashlib

import torch


def fold(seed: int, purpose: str, *place: int) -> int:
    """A 63-bit number that depends on all arguments; the same on every machine."""
    text = f"{seed}/{purpose}/" + "/".join(map(str, place))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *place: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(fold(seed, purpose, *place))


def reseed_global(number: int, cuda: bool | None = None) -> None:
    """Point torch's own generators (dropout, initial weights) at one number; cuda None looks for a device, 100 us."""
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_available() if cuda is None else cuda:
        torch.cuda.manual_seed_all(number)
