"""The Hugging Face Hub: `client` pushes and pulls models, `card` writes model cards, `space` makes a Space.

`dataset_push` and `dataset_download` publish and copy data sets.

huggingface_hub is imported inside the functions that use it: its import takes half a second, which nobody who only
trains or predicts should wait for.
"""

from antbee.hub.client import card_for, pull, push, push_space, repository_files
from antbee.hub.dataset_download import dataset_commit, download_dataset
from antbee.hub.dataset_push import DatasetFiles, dataset_files, push_dataset
from antbee.hub.errors import HubError, may_pass

__all__ = [
    "DatasetFiles",
    "HubError",
    "card_for",
    "dataset_commit",
    "dataset_files",
    "download_dataset",
    "may_pass",
    "pull",
    "push",
    "push_dataset",
    "push_space",
    "repository_files",
]
