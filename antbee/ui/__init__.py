"""The page: one file a tab. Handlers take and return plain data; the layout has no logic.

Gradio is imported here alone.
"""

from antbee.ui.exhibition import Exhibit, Exhibition, Shown, load_models, of_classes
from antbee.ui.page import build_page, launch

__all__ = ["Exhibit", "Exhibition", "Shown", "build_page", "launch", "load_models", "of_classes"]
