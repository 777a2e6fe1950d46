"""What the tests of the training loop share."""

import pytest

from antbee.data.drawn import write_drawn_set
from antbee.data.folder import ImageDataset, read_folder


@pytest.fixture(scope="session")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    """Six training and four validation images of each class."""
    root = tmp_path_factory.mktemp("few") / "drawn"
    return read_folder(write_drawn_set(root, train={"ants": 6, "bees": 6}, val={"ants": 4, "bees": 4}, longest_side=96))
