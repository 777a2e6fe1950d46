"""The page's texts in a visitor's language.

What stands there from the start is translated in the browser (`label`), by the browser's language; what a handler says
comes translated (`Translator`), in the language that the browser asks for. Class names and file names stay as they are.
"""

import html
from dataclasses import dataclass

import gradio as gr
from gradio.i18n import I18nData

from antbee.ui.texts import TEXTS


@dataclass(frozen=True)
class Translator:
    """One language of the page: `translate("batches.grid", name=...)` gives a text with its names filled in."""

    language: str
    place: int  # in the tuples of TEXTS

    def __call__(self, key: str, **values: object) -> str:
        """The text of this name. Raises KeyError where there is none, or where a value is missing."""
        return TEXTS[key][self.place].format(**values)


ENGLISH, CHINESE = Translator("en", 0), Translator("zh-CN", 1)


def translator_of(request: gr.Request | None) -> Translator:
    """The language that a browser asks for first; English where it asks for another one, or where nobody asks."""
    return translator_in("" if request is None else str(request.headers.get("accept-language", "")))


def translator_in(accepted: str) -> Translator:
    """The same for the header Accept-Language."""
    return CHINESE if accepted.strip().lower().startswith("zh") else ENGLISH


def in_toast(text: object) -> str:
    """Text as gr.Error and gr.Info show it letter by letter: of HTML in it, links and pictures would come through."""
    return html.escape(str(text), quote=False)


def label(key: str) -> I18nData:
    """A text that the browser puts into its own language. Raises KeyError where there is none of this name."""
    if key not in TEXTS:
        raise KeyError(key)
    return I18nData(key)


def translations() -> gr.I18n:
    """What the browser is given to translate with."""
    texts = [{key: text[translate.place] for key, text in TEXTS.items()} for translate in (ENGLISH, CHINESE)]
    return gr.I18n(en=texts[0], zh=texts[1], **{"zh-CN": texts[1]})
