"""What may be named as a file: one that was uploaded here, and nothing else.

Gradio looks for files in every argument of a call, text fields included, and downloads what one of them names by an
address before any handler runs; and for whoever asks for `file=https://...` it downloads that. So requests are read
before Gradio reads them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gradio as gr
from gradio.data_classes import FileData
from gradio_client.utils import value_is_file
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antbee.data.images import DataError
from antbee.ui.components import uploaded
from antbee.ui.i18n import Translator, translator_in
from antbee.ui.security import UPLOAD, route_of

DOWNLOADS = ("/gradio_api/file=", "/gradio_api/file/")


class UploadsOnly:
    """A middleware of ASGI that answers by itself what names any file but an upload: 403 an address, 422 a call."""

    def __init__(self, app: ASGIApp, page: gr.Blocks) -> None:
        self._app = app
        self._functions = _functions_of(page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or whatever else a server has to say to an app. Reads a body whole, but for uploads."""
        if scope["type"] != "http" or (route := route_of(scope)) == UPLOAD:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        translate = translator_in(request.headers.get("accept-language", ""))
        if not _may_download(route):
            await PlainTextResponse(translate("gate.file"), 403)(scope, receive, send)
            return
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        if self._may_call(route, body):
            await self._app(scope, _replayed(body, receive), send)
        else:
            await _refusal(translate)(scope, receive, send)

    def _may_call(self, route: str, body: bytes) -> bool:
        try:
            call = json.loads(body)  # as Starlette reads it for Gradio
        except RecursionError:
            return False
        except ValueError:
            return True  # no call
        # Names of arguments may be those of a file's fields, so the outermost object is no file.
        values = call.values() if isinstance(call, dict) else [call]
        return all(map(_is_upload, _files_in(values))) and self._suits(route, call)

    def _suits(self, route: str, call: Any) -> bool:
        """Whether the arguments for parts of the page that hold files are files. Text fields may say what they like."""
        if not isinstance(call, dict):
            return True
        index, name = _integer(call.get("fn_index")), route.rstrip("/").rpartition("/")[2]
        # A call is told by a number or by its address. Where both are there, it has to suit both.
        named = [function for function in self._functions if function.index == index or function.name == name]
        return all(function.takes(call, by_name="/call/v2/" in route) for function in named)


@dataclass(frozen=True)
class _Function:
    """What can be called, by a number or by name, with Gradio's model of each argument that is for files, else None."""

    index: int
    name: str | bool | None
    models: tuple[type[BaseModel] | None, ...]
    given: dict[str, type[BaseModel] | None]  # those that callers give, by name: the server itself knows the others

    def takes(self, call: Mapping[str, Any], *, by_name: bool) -> bool:
        """Whether each argument for files is what its model takes."""
        values = [call.get(name) for name in self.given] if by_name else call.get("data")
        if not isinstance(values, list):
            return True
        models = self.models if len(values) == len(self.models) else self.given.values()
        return all(_suits(model, value) for model, value in zip(models, values, strict=False))


def _functions_of(page: gr.Blocks) -> tuple[_Function, ...]:
    endpoints = page.get_api_info()["named_endpoints"]
    functions = []
    for index, function in page.fns.items():
        models = tuple(map(_model_of, function.inputs))
        given = [model for model, part in zip(models, function.inputs, strict=True) if not part.skip_api]
        # The page's own functions have no names of arguments: none but the page calls them.
        told = endpoints.get(f"/{function.api_name}", {"parameters": []})["parameters"]
        names = [str(one["parameter_name"]) for one in told] or map(str, range(len(given)))
        functions.append(_Function(index, function.api_name, models, dict(zip(names, given, strict=True))))
    return tuple(functions)


def _model_of(part: Any) -> type[BaseModel] | None:
    return part.data_model if value_is_file(part.api_info()) else None


def _suits(model: type[BaseModel] | None, value: Any) -> bool:
    if model is None or value is None:
        return True
    try:
        model.model_validate(value, context={"validate_meta": True})
    except ValidationError:
        return False
    return True


def _integer(value: Any) -> int | None:
    """A number of a function as Gradio takes it: 3, 3.0 or "3"."""
    try:
        return TypeAdapter(int).validate_python(value)
    except ValidationError:
        return None


def _files_in(values: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """All that Gradio may take for a file, at any depth."""
    pending = list(values)
    while pending:  # no recursion: whoever sends it says how deep it is
        value = pending.pop()
        if isinstance(value, dict):
            if "path" in value or "url" in value:
                yield value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _is_upload(file: dict[str, Any]) -> bool:
    try:
        told = FileData.model_validate(file)
        uploaded(file)
    except (ValidationError, DataError):
        return False
    # Gradio puts an address of its own there, but only beside "meta"; any other address would reach browsers.
    return told.url is None or ("meta" in file and unquote(told.url).endswith(f"{DOWNLOADS[0]}{told.path}"))


def _may_download(route: str) -> bool:
    """Whether it is no address that is to be downloaded. Of paths here Gradio itself gives uploads alone."""
    return all(
        Path(route.removeprefix(beginning)).is_absolute() for beginning in DOWNLOADS if route.startswith(beginning)
    )


def _refusal(translate: Translator) -> JSONResponse:
    """In the form in which Gradio says that an argument is wrong: its clients show the sentence."""
    wrong = {"__type__": "validate", "is_valid": False, "parameter_name": "file", "message": translate("gate.file")}
    return JSONResponse({"detail": [wrong]}, 422)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read once more, then whatever else comes."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
