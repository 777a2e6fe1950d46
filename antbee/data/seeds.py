"""Independent seeds and random generators, derived from the run's seed and the purpose they serve."""

import hashlib

import torch


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from a hash of the parts: the same on every machine, another one for other parts."""
    text = "/".join(map(str, parts))
    # Class names are folder names, which need not be valid Unicode.
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()) >> 1


def seeded_generator(*parts: int | str) -> torch.Generator:
    """A CPU `torch.Generator` with the seed `derived_seed(*parts)`."""
    return torch.Generator().manual_seed(derived_seed(*parts))
