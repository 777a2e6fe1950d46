"""Calls may name uploaded files only.

Gradio looks for files in every argument of a call, text fields included, and downloads URLs before any handler runs;
a request for `file=https://...` makes it download that URL. So requests are checked before Gradio reads them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """ASGI middleware that refuses other files than uploads: 403 for a URL in the path, 422 for a file in a call."""

    def __init__(self, app: ASGIApp, page: gr.Blocks) -> None:
        self._app = app
        self._functions = _functions_of(page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request, whose body it reads as a whole, but for uploads; other ASGI scopes pass."""
        if scope["type"] != "http" or (route := route_of(scope)) == UPLOAD:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        translate = translator_in(request.headers.get("accept-language", ""))
        if not _may_download(route):
            await PlainTextResponse(translate("security.file"), 403)(scope, receive, send)
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
            call = json.loads(body)  # as Starlette does for Gradio
        except RecursionError:
            return False
        except ValueError:
            return True  # not a call
        # An argument may be called like a file's field, so the outermost object is never a file.
        values = call.values() if isinstance(call, dict) else [call]
        return all(map(_is_upload, _files_in(values))) and self._fits(route, call)

    def _fits(self, route: str, call: Any) -> bool:
        """Whether the arguments for file components are files. Text fields may hold anything."""
        if not isinstance(call, dict):
            return True
        index, name = _integer(call.get("fn_index")), route.rstrip("/").rpartition("/")[2]
        # A call names its function by index or by route; with both, it has to fit both. But browsers send every call
        # outside the queue to run/predict, where the index alone counts.
        is_indexed = index is not None and route.startswith("/gradio_api/run/")
        named = [one for one in self._functions if one.index == index or (one.name == name and not is_indexed)]
        return all(function.takes(call, by_name="/call/v2/" in route) for function in named)


@dataclass(frozen=True)
class _Function:
    """A function that can be called, with Gradio's data model of each argument; None where it takes no file."""

    index: int
    name: str | bool | None
    models: tuple[type[BaseModel] | None, ...]
    named: dict[str, type[BaseModel] | None]  # of API callers, who do not send the values of gr.State

    def takes(self, call: Mapping[str, Any], *, by_name: bool) -> bool:
        """Whether each argument is valid for its model."""
        values = [call.get(name) for name in self.named] if by_name else call.get("data")
        if not isinstance(values, list):
            return True
        models = self.models if len(values) == len(self.models) else self.named.values()
        return all(_fits(model, value) for model, value in zip(models, values, strict=False))


def _functions_of(page: gr.Blocks) -> tuple[_Function, ...]:
    endpoints = page.get_api_info()["named_endpoints"]
    functions = []
    for index, function in page.fns.items():
        parts: Sequence[Any] = function.inputs
        models = tuple(part.data_model if value_is_file(part.api_info()) else None for part in parts)
        given = [model for model, part in zip(models, parts, strict=True) if not part.skip_api]
        # Private functions have no argument names.
        parameters = endpoints.get(f"/{function.api_name}", {"parameters": []})["parameters"]
        names = [str(one["parameter_name"]) for one in parameters] or map(str, range(len(given)))
        functions.append(_Function(index, function.api_name, models, dict(zip(names, given, strict=True))))
    return tuple(functions)


def _fits(model: type[BaseModel] | None, value: Any) -> bool:
    try:
        if model is not None and value is not None:
            model.model_validate(value, context={"validate_meta": True})
    except ValidationError:
        return False
    return True


def _integer(value: Any) -> int | None:
    """An index as Gradio parses it: 3, 3.0 or "3"."""
    try:
        return TypeAdapter(int).validate_python(value)
    except ValidationError:
        return None


def _files_in(values: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """All objects that Gradio may take for a file, at any depth."""
    pending = list(values)
    while pending:  # no recursion: the sender decides how deep it is
        value = pending.pop()
        if isinstance(value, dict):
            if "path" in value or "url" in value:
                yield value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _is_upload(file: dict[str, Any]) -> bool:
    try:
        data = FileData.model_validate(file)
        uploaded(file)
    except (ValidationError, DataError):
        return False
    # Gradio replaces the URL, but only next to "meta"; any other URL would be sent to browsers.
    return data.url is None or ("meta" in file and unquote(data.url).endswith(f"{DOWNLOADS[0]}{data.path}"))


def _may_download(route: str) -> bool:
    """Whether a route is not a request to download a URL. Of local paths Gradio serves uploads only."""
    return all(
        Path(route.removeprefix(beginning)).is_absolute() for beginning in DOWNLOADS if route.startswith(beginning)
    )


def _refusal(translate: Translator) -> JSONResponse:
    """The refusal in the form of a validation error of Gradio, whose message clients show."""
    detail = {"__type__": "validate", "is_valid": False, "parameter_name": "file"}
    return JSONResponse({"detail": [detail | {"message": translate("security.file")}]}, 422)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Receives a body that was already read, then the remaining messages."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return pending.pop() if pending else await receive()

    return receive_again
