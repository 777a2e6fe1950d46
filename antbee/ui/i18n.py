"""The page's texts in a visitor's language.

Labels are translated in the browser (`label`), by the browser's language. What a handler returns is translated on the
server (`Translator`), by the request's Accept-Language. Class names and file names are never translated.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field

import gradio as gr
from gradio.i18n import I18nData

from antbee.ui.texts import en, zh


@dataclass(frozen=True)
class Translator:
    """One language of the page: `translate("batches.grid", name=...)` returns a text with its fields filled in."""

    language: str
    texts: Mapping[str, str] = field(repr=False)

    def __call__(self, key: str, **values: object) -> str:
        """The text of this key. Raises KeyError where there is none, or where the value of a field is missing."""
        return self.texts[key].format(**values)


ENGLISH, CHINESE = Translator("en", en.TEXTS), Translator("zh-CN", zh.TEXTS)


def translator_of(request: gr.Request | None) -> Translator:
    """The language that a browser asks for first; English for others, and without a request."""
    return translator_in("" if request is None else str(request.headers.get("accept-language", "")))


def translator_in(accepted: str) -> Translator:
    """The same for the header Accept-Language."""
    return CHINESE if accepted.strip().lower().startswith("zh") else ENGLISH


def in_toast(text: object) -> str:
    """Text escaped for gr.Error and gr.Info, which render HTML."""
    return html.escape(str(text), quote=False)


def label(key: str) -> I18nData:
    """A text that the browser translates. Raises KeyError for an unknown key."""
    if key not in en.TEXTS:
        raise KeyError(key)
    return I18nData(key)


def translations() -> gr.I18n:
    """The texts that the browser translates labels with."""
    return gr.I18n(en=dict(en.TEXTS), zh=dict(zh.TEXTS), **{"zh-CN": dict(zh.TEXTS)})
