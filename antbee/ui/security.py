"""What may reach the page: bodies of a size that it has a use for, and, where it is for this computer alone, no others.

It stands before Gradio, which would keep a JSON body of any size in memory, and answer under any name.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antbee.ui.i18n import Translator, translator_in

if TYPE_CHECKING:  # it is not there to be imported otherwise
    from python_multipart.multipart import MultipartCallbacks


# Bytes of all that is no upload. The page's own largest are galleries of 400 photos, whose files have long names.
LARGEST_BODY = 1_000_000
LARGEST_UPLOAD = 1_000_000_000  # bytes of all files of a request, which go to the disk one after another
MOST_FILES = 400  # of a request: browsers send all that were dropped in one, and no tab takes more
LARGEST_FIELDS = 10_000  # bytes of an upload that are no file's: Gradio keeps them in memory, and uses none of them

UPLOAD = "/gradio_api/upload"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # RFC 9110, 9.2.1: they ask for no change


class RequestLimits:
    """A middleware of ASGI that answers by itself what must not go on: 413 too large, 400 and 403 from elsewhere."""

    def __init__(self, app: ASGIApp, *, for_this_computer: bool) -> None:
        self._app = app
        self._for_this_computer = for_this_computer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or whatever else a server has to say to an app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        translate = translator_in(headers.get("accept-language", ""))
        if self._for_this_computer and (refusal := _from_elsewhere(scope["method"], headers, translate)):
            await refusal(scope, receive, send)
            return
        kind, largest = (_Upload, LARGEST_UPLOAD) if route_of(scope) == UPLOAD else (_Body, LARGEST_BODY)
        await self._let_in(scope, kind(receive, headers, largest, translate), send)

    async def _let_in(self, scope: Scope, body: "_Body", send: Send) -> None:
        is_answered = False

        async def unless_answered(message: Message) -> None:
            if not is_answered:
                await send(message)

        async def receive() -> Message:
            nonlocal is_answered
            try:
                return await body.receive()
            except TooMuchError as error:
                if not is_answered:
                    # Now, since whoever reads the body makes something else of the exception. The rest stays unread.
                    answer = PlainTextResponse(str(error), 413, {"Connection": "close"})
                    await answer(scope, receive, send)
                    is_answered = True
                raise

        try:
            body.check_announced()
        except TooMuchError as error:
            await PlainTextResponse(str(error), 413, {"Connection": "close"})(scope, receive, send)
            return
        try:
            await self._app(scope, receive, unless_answered)
        except TooMuchError:
            return


def route_of(scope: Scope) -> str:
    """The path of a request as Gradio's routes know it: below --root-path, which not every proxy takes away."""
    return str(scope["path"].removeprefix(scope.get("root_path", "")))


# MultiPartException: at it, and at no other, Gradio deletes what it has written of an upload.
class TooMuchError(MultiPartException):
    """More came than is taken; the message says so to a visitor."""

    def __str__(self) -> str:
        """The sentence."""
        return self.message


class InterruptedUploadError(MultiPartException):
    """Whoever was sending files is gone."""


class _Body:
    """A request's body, which may have so many bytes."""

    def __init__(self, receive: Receive, headers: Headers, largest: int, translate: Translator) -> None:
        self._receive = receive
        self._headers = headers
        self._largest = largest
        self._speech = translate
        self._count = 0

    def check_announced(self) -> None:
        """Raises TooMuchError where the headers say that more will come."""
        self._check(int(self._headers.get("content-length", 0)))

    async def receive(self) -> Message:
        """The next message. Raises TooMuchError once too much came."""
        message = await self._receive()
        self._count += len(message.get("body", b""))
        self._check(self._count)
        return message

    def _check(self, count: int) -> None:
        if count > self._largest:
            raise TooMuchError(self._speech("gate.large", most=self._largest // 1_000_000))


class _Upload(_Body):
    """A body of files; what is in it is read as Gradio reads it, so that both see the same parts."""

    def __init__(self, receive: Receive, headers: Headers, largest: int, translate: Translator) -> None:
        super().__init__(receive, headers, largest, translate)
        self._is_complete = False
        self._files = 0
        self._fields = 0  # bytes
        self._header = b""
        self._value = b""
        self._is_file = False
        _, options = parse_options_header(headers.get("content-type"))
        boundary = options.get(b"boundary")
        self._parser = None if boundary is None else MultipartParser(boundary, self._callbacks())

    async def receive(self) -> Message:
        """The next message. Raises TooMuchError; and InterruptedUploadError where the rest will not come."""
        message = await super().receive()
        if message["type"] == "http.disconnect" and not self._is_complete:
            raise InterruptedUploadError("gone")
        if message["type"] == "http.request":
            self._is_complete = not message.get("more_body", False)
            if self._parser is not None:
                self._parser.write(message.get("body", b""))
        return message

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._begin_header,
            "on_header_field": self._name,
            "on_header_value": self._content,
            "on_header_end": self._end_header,
            "on_part_data": self._data,
        }

    def _begin(self) -> None:
        self._is_file = False

    def _begin_header(self) -> None:
        self._header = self._value = b""

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _content(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._is_file = b"filename" in parse_options_header(self._value)[1]
            self._files += self._is_file
            if self._files > MOST_FILES:
                raise TooMuchError(self._speech("gate.many", most=MOST_FILES))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._fields += 0 if self._is_file else end - start
        if self._fields > LARGEST_FIELDS:
            raise TooMuchError(self._speech("gate.fields"))


def _from_elsewhere(method: str, headers: Headers, translate: Translator) -> PlainTextResponse | None:
    """What is answered to a request that did not come from a page of this computer.

    A name of somebody else's that leads here would let their pages read this one: DNS rebinding. And any page on the
    web may send a form to here.
    """
    if not all(map(_is_this_computer, _named(headers, "host", "x-forwarded-host"))):
        return PlainTextResponse(translate("gate.host"), 400)
    if method not in SAFE_METHODS and not all(map(_is_this_computer, _named(headers, "origin"))):
        return PlainTextResponse(translate("gate.origin"), 403)
    return None


def _named(headers: Headers, *names: str) -> Iterable[str]:
    """What headers of these names say, however often they are there."""
    return [host for name in names for value in headers.getlist(name) for host in value.split(",")]


def _is_this_computer(host: str) -> bool:
    """Whether a host, with or without scheme and port, is a name of the computer that it is read on."""
    host = host.strip()
    try:
        name = urlsplit(host if "://" in host else f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:  # no address: another name, or nothing that names a host
        return False
