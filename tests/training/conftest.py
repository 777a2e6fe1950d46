"""What the tests of the training loop share."""

from pathlib import Path

import pytest

import antbee.hub
from antbee.data.drawn import write_drawn_set
from antbee.data.folder import ImageDataset, read_folder
from antbee.hub import HubError
from antbee.models import weights

UNREACHABLE = "the weights can't be reached (no route to host)"


@pytest.fixture(scope="session")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    """Six training and four validation images of each class."""
    root = tmp_path_factory.mktemp("few") / "drawn"
    return read_folder(write_drawn_set(root, train={"ants": 6, "bees": 6}, val={"ants": 4, "bees": 4}, longest_side=96))


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """No weights in a cache, and no network: only the weights that come by pip are there. Gives the reason."""

    def pull(repository: str, **options: object) -> Path:
        raise HubError("the Hub can't be reached (no route to host).")

    def download(url: str, path: Path, expected: str) -> None:
        raise weights.WeightsUnreachableError(UNREACHABLE)

    monkeypatch.setattr(antbee.hub, "pull", pull)
    monkeypatch.setattr(weights, "_download", download)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return UNREACHABLE
