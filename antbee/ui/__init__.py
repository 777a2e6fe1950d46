"""The page: one file a tab. Handlers take and return plain data; the layout has no logic.

Gradio is imported here alone.
"""

from antbee.ui.page import build_page, launch
from antbee.ui.registry import LoadedModel, ModelRegistry, Snapshot, load_models, of_classes

__all__ = ["LoadedModel", "ModelRegistry", "Snapshot", "build_page", "launch", "load_models", "of_classes"]
