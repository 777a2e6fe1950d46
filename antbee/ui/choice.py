"""What a visitor chose to look at, and when the tabs have to look again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr


@dataclass(frozen=True)
class Choice:
    """The models that a visitor looks at, for every tab."""

    models: gr.Dropdown  # their names
    changes: list[Callable[..., Any]]  # events: the page was opened, others were chosen, or others are there
