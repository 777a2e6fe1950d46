"""Limits of requests: the size of bodies, the number of files and, for a local page, host names and origins.

This middleware comes before Gradio, which keeps JSON bodies of any size in memory and answers under any host name.
"""

from collections.abc import Iterable
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antbee.ui.i18n import Translator, translator_in

if TYPE_CHECKING:  # it does not exist at run time
    from python_multipart.multipart import MultipartCallbacks

# Bytes of a request but for uploads. The page's own largest ones list galleries of 400 photos with long file names.
LARGEST_BODY = 1_000_000
LARGEST_UPLOAD = 1_000_000_000  # bytes of all files of a request, which are written to the disk one after another
MOST_FILES = 400  # per request: browsers send all dropped files in one, and no tab accepts more
LARGEST_FIELDS = 10_000  # bytes of an upload's other form fields: Gradio keeps them in memory and uses none of them

UPLOAD = "/gradio_api/upload"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # RFC 9110, 9.2.1: requests that change nothing


class RequestLimits:
    """ASGI middleware that refuses requests: 413 for too large ones; on a local page, 400 and 403 for remote ones."""

    def __init__(self, app: ASGIApp, *, local_only: bool) -> None:
        self._app = app
        self._local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; other ASGI scopes pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        translate = translator_in(headers.get("accept-language", ""))
        if self._local_only and (refusal := _refuse_remote(scope["method"], headers, translate)):
            await refusal(scope, receive, send)
            return
        kind, largest = (_Upload, LARGEST_UPLOAD) if route_of(scope) == UPLOAD else (_Body, LARGEST_BODY)
        await self._pass_on(scope, kind(receive, headers, largest, translate), send)

    async def _pass_on(self, scope: Scope, body: "_Body", send: Send) -> None:
        is_refused = False

        async def refuse(error: TooMuchError) -> None:
            nonlocal is_refused
            if not is_refused:  # the rest of the body stays unread
                await PlainTextResponse(str(error), 413, {"Connection": "close"})(scope, receive, send)
                is_refused = True

        async def send_unless_refused(message: Message) -> None:
            if not is_refused:
                await send(message)

        async def receive() -> Message:
            try:
                return await body.receive()
            except TooMuchError as error:
                await refuse(error)  # here, since the app may turn the exception into another answer
                raise

        try:
            body.check_announced()
            await self._app(scope, receive, send_unless_refused)
        except TooMuchError as error:
            await refuse(error)


def route_of(scope: Scope) -> str:
    """The path of a request without --root-path, which not every proxy removes."""
    return str(scope["path"].removeprefix(scope.get("root_path", "")))


# MultiPartException is the only one at which Gradio deletes the files that it has written of an upload.
class TooMuchError(MultiPartException):
    """A request exceeds a limit; the message is for the visitor."""

    def __str__(self) -> str:
        """The message."""
        return self.message


class InterruptedUploadError(MultiPartException):
    """The client disconnected during an upload."""


class _Body:
    """A request's body of at most `largest` bytes."""

    def __init__(self, receive: Receive, headers: Headers, largest: int, translate: Translator) -> None:
        self._receive = receive
        self._headers = headers
        self._largest = largest
        self._translate = translate
        self._count = 0

    def check_announced(self) -> None:
        """Raises TooMuchError where the content-length is too large."""
        self._check(int(self._headers.get("content-length", 0)))

    async def receive(self) -> Message:
        """The next message. Raises TooMuchError once the body is too large."""
        message = await self._receive()
        self._count += len(message.get("body", b""))
        self._check(self._count)
        return message

    def _check(self, count: int) -> None:
        if count > self._largest:
            raise TooMuchError(self._translate("security.large", most=self._largest // 1_000_000))


class _Upload(_Body):
    """An upload, parsed with the parser that Gradio uses, so that both see the same parts."""

    def __init__(self, receive: Receive, headers: Headers, largest: int, translate: Translator) -> None:
        super().__init__(receive, headers, largest, translate)
        self._is_complete = False
        self._files = 0
        self._fields = 0  # bytes
        self._header = [b"", b""]  # name and value
        self._is_file = False
        _, options = parse_options_header(headers.get("content-type"))
        boundary = options.get(b"boundary")
        self._parser = None if boundary is None else MultipartParser(boundary, self._callbacks())

    async def receive(self) -> Message:
        """The next message. Raises TooMuchError, and InterruptedUploadError where the client disconnects."""
        message = await super().receive()
        if message["type"] == "http.disconnect" and not self._is_complete:
            raise InterruptedUploadError("disconnected")
        if message["type"] == "http.request":
            self._is_complete = not message.get("more_body", False)
            if self._parser is not None:
                self._parser.write(message.get("body", b""))
        return message

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": partial(self._add_to_header, 0),
            "on_header_value": partial(self._add_to_header, 1),
            "on_header_end": self._end_header,
            "on_part_data": self._count_data,
        }

    def _begin_part(self) -> None:
        self._is_file, self._header = False, [b"", b""]

    def _add_to_header(self, place: int, data: bytes, start: int, end: int) -> None:
        self._header[place] += data[start:end]

    def _end_header(self) -> None:
        (name, value), self._header = self._header, [b"", b""]
        if name.lower() == b"content-disposition":
            self._is_file = b"filename" in parse_options_header(value)[1]
            self._files += self._is_file
            if self._files > MOST_FILES:
                raise TooMuchError(self._translate("security.many", most=MOST_FILES))

    def _count_data(self, data: bytes, start: int, end: int) -> None:
        self._fields += 0 if self._is_file else end - start
        if self._fields > LARGEST_FIELDS:
            raise TooMuchError(self._translate("security.fields"))


def _refuse_remote(method: str, headers: Headers, translate: Translator) -> PlainTextResponse | None:
    """The refusal of a request that did not come from a page on this computer; None for the others.

    Another host name that resolves to this computer would let its pages read this one (DNS rebinding), and any web page
    can post a form to this address.
    """
    if not all(map(_is_loopback, _hosts(headers, "host", "x-forwarded-host"))):
        return PlainTextResponse(translate("security.host"), 400)
    if method not in SAFE_METHODS and not all(map(_is_loopback, _hosts(headers, "origin"))):
        return PlainTextResponse(translate("security.origin"), 403)
    return None


def _hosts(headers: Headers, *names: str) -> Iterable[str]:
    """The values of all headers of these names, which may occur several times."""
    return [host for name in names for value in headers.getlist(name) for host in value.split(",")]


def _is_loopback(host: str) -> bool:
    """Whether a host, with or without scheme and port, is a name or an address of this computer."""
    host = host.strip()
    try:
        name = urlsplit(host if "://" in host else f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:  # another name, or no host at all
        return False
