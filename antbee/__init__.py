"""antbee: two folders of photos in, an image classifier out that can be shown, trusted and shared."""

from antbee.models.classifier import Classifier

__version__ = "0.1.0"
__all__ = ["Classifier", "__version__"]
