"""Two folders of photos in, an image classifier out that can be shown, trusted and shared: transfer learning.

    data = antbee.load_folder("my_photos")
    run = antbee.train(data)
    print(run.best.predict("photo.jpg"))

Names are imported when they are first used: `import antbee` itself is silent, offline and quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antbee.data.download import load_folder
    from antbee.data.folder import ImageDataset
    from antbee.errors import AntbeeError
    from antbee.models.classifier import Classifier
    from antbee.training.check import check
    from antbee.training.evaluate import evaluate
    from antbee.training.export import export
    from antbee.training.pipeline import train
    from antbee.training.predict import iter_predictions, predict_files
    from antbee.training.rename import rename

__version__ = "0.2.0"
__all__ = [
    "AntbeeError",
    "Classifier",
    "ImageDataset",
    "__version__",
    "check",
    "evaluate",
    "export",
    "iter_predictions",
    "load_folder",
    "predict_files",
    "rename",
    "train",
]

_MODULES = {
    "AntbeeError": "antbee.errors",
    "Classifier": "antbee.models.classifier",
    "ImageDataset": "antbee.data.folder",
    "check": "antbee.training.check",
    "evaluate": "antbee.training.evaluate",
    "export": "antbee.training.export",
    "load_folder": "antbee.data.download",
    "iter_predictions": "antbee.training.predict",
    "predict_files": "antbee.training.predict",
    "rename": "antbee.training.rename",
    "train": "antbee.training.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'antbee' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
