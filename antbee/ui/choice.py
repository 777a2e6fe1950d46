"""What a visitor chose to look at, and when the tabs have to look again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from antbee.ui.exhibition import SIDE_BY_SIDE, Exhibition


@dataclass(frozen=True)
class Choice:
    """The models that a visitor looks at, for every tab."""

    models: gr.Dropdown  # their names
    edition: gr.State  # see Exhibition.edition: what the visitor's browser shows is of this one
    changes: list[Callable[..., Any]]  # events: the page was opened (it comes first), others were chosen or are there


def newly_chosen(exhibition: Exhibition) -> list[Any]:
    """What stands in `models` and `edition` where a visitor has chosen nothing yet."""
    names = exhibition.now.names
    return [gr.Dropdown(names, value=names[:SIDE_BY_SIDE]), exhibition.edition]
