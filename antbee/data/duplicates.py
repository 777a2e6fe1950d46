"""Photos with the same bytes, by the digests of their files."""

from collections.abc import Iterable, Mapping
from pathlib import Path


def shared_bytes(digests: Mapping[Path, str], paths: Iterable[Path], others: Iterable[Path]) -> int:
    """How many of the other images are, byte for byte, among these."""
    known = {digests[path] for path in paths}
    return sum(digests[path] in known for path in others)


def in_two_classes(
    digests: Mapping[Path, str], paths: Iterable[Path], labels: Iterable[int]
) -> tuple[tuple[Path, Path], ...]:
    """Each image with the bytes of an earlier one that has another label, after that one."""
    first: dict[str, tuple[Path, int]] = {}
    pairs = []
    for path, label in zip(paths, labels, strict=True):
        earlier, its_label = first.setdefault(digests[path], (path, label))
        if its_label != label:
            pairs.append((earlier, path))
    return tuple(pairs)
