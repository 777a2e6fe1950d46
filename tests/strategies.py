"""What the tests that generate their inputs have in common."""

import os
from collections.abc import Sequence

from hypothesis import strategies as st


def file_names(odd: Sequence[str]) -> st.SearchStrategy[str]:
    """Names as a file system may hold them: any bytes, and a few `odd` parts together."""
    return st.one_of(
        st.binary(min_size=1, max_size=16).map(lambda name: os.fsdecode(name.replace(b"\0", b"x"))),
        st.lists(st.sampled_from(odd), min_size=1, max_size=4).map("".join),
    )
