"""The digest of a data set: one checksum of all its files and their names."""

import hashlib
from collections.abc import Mapping
from pathlib import Path


def folder_digest(root: Path) -> str:
    """SHA-256 of the sorted lines "SHA-256 of a file, two spaces, its path below `root`", in hexadecimal."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return digest_of(
        {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    )


def digest_of(digests: Mapping[str, str]) -> str:
    """SHA-256 of the sorted lines "digest, two spaces, path" of files, given by path, in hexadecimal."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
