"""python tests/endurance/load.py [--users N] [--requests N] [--unique] [--minutes M] [--mixed]

Asks the page's API as many visitors at once do, and says how long they wait and what that costs the machine. The page
runs in a process of its own on two untrained ResNet-18 of real size; nothing but loopback is used. Ends with 1 where a
good photo got no answer.
"""

import argparse
import asyncio
import json
import random
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from served import MEGABYTE, Served, photo_bytes, served_page, unique

PATIENCE = 120  # seconds that one answer may take
WARM_UP = 500  # requests, after which memory should stay level
BAD = (b"", b"no photo at all", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n cut")


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Ask the page as many visitors at once do.")
    parser.add_argument("--users", type=int, default=50, metavar="N", help="visitors at once (default: 50)")
    parser.add_argument("--requests", type=int, default=2000, metavar="N", help="photos in all (default: 2000)")
    parser.add_argument("--unique", action="store_true", help="no photo is sent twice")
    parser.add_argument("--minutes", type=float, metavar="M", help="go on so long, instead of --requests")
    parser.add_argument("--mixed", action="store_true", help="every third file is no photo, or a visitor who leaves")
    return parser.parse_args()


@dataclass
class Outcome:
    """How visitors fared."""

    seconds: list[float] = field(default_factory=list)  # of each answer
    errors: list[str] = field(default_factory=list)
    refused: int = 0  # files that are no photos, with a sentence
    left: int = 0  # visitors who did not wait for their answer
    lasted: float = 0.0  # seconds, all of it

    def __str__(self) -> str:
        if not self.seconds:
            return f"no answers, {len(self.errors)} errors"
        waited = statistics.quantiles(self.seconds, n=100, method="inclusive")
        summary = (
            f"{len(self.seconds)} answers, {len(self.errors)} errors, p50 {waited[49]:.2f} s, p95 {waited[94]:.2f} s, "
            f"slowest {max(self.seconds):.2f} s, {len(self.seconds) / self.lasted:.1f}/s"
        )
        return summary + (f", {self.refused} refused, {self.left} left" if self.refused or self.left else "")


class Visitor:
    """Somebody who asks as Gradio's own clients do: in one session, from the upload to the end of the event stream."""

    def __init__(self, client: httpx.AsyncClient, function: int) -> None:
        self.client = client
        self.function = function  # the endpoint /predict, as the page numbers it
        self.session = secrets.token_hex(8)

    async def ask(self, photo: bytes) -> dict[str, Any]:
        """The page's answer to one photo, or its error."""
        sent = await self.client.post("gradio_api/upload", files={"files": ("photo.jpg", photo)})
        sent.raise_for_status()
        file = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
        asked = {"data": [file], "fn_index": self.function, "session_hash": self.session}
        joined = await self.client.post("gradio_api/queue/join", json=asked)
        joined.raise_for_status()
        address, event = "gradio_api/queue/data", joined.json()["event_id"]
        async with self.client.stream("GET", address, params={"session_hash": self.session}) as messages:
            async for line in messages.aiter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed" and message["event_id"] == event:
                    return message["output"]
        raise httpx.RemoteProtocolError("the stream ended without an answer")


async def answered(visitor: Visitor, photo: bytes, outcome: Outcome) -> None:
    """Asks with a good photo, and notes how long that took."""
    began = time.perf_counter()
    try:
        answer = await visitor.ask(photo)
    except httpx.HTTPError as error:
        outcome.errors.append(f"{type(error).__name__}: {error}")
        return
    if "data" in answer and set(answer["data"][0]) == {"frozen", "finetune"}:
        outcome.seconds.append(time.perf_counter() - began)
    else:
        outcome.errors.append(str(answer)[:200])


async def disturbed(visitor: Visitor, photo: bytes, outcome: Outcome) -> None:
    """Sends what is no photo, or leaves before the answer."""
    try:
        if random.random() < 0.5:
            answer = await visitor.ask(random.choice(BAD))
            outcome.refused += 1
            if "can't be used" not in str(answer.get("error")):
                outcome.errors.append(f"no sentence for what is no photo: {str(answer)[:200]}")
        else:
            await asyncio.wait_for(visitor.ask(photo), random.uniform(0.01, 0.2))
    except (httpx.HTTPError, TimeoutError):
        outcome.left += 1


async def function_of(client: httpx.AsyncClient) -> int:
    """The number of the endpoint /predict."""
    handlers = (await client.get("config")).json()["dependencies"]
    return next(handler["id"] for handler in handlers if handler["api_name"] == "predict")


async def visit(url: str, users: int, photos: Iterator[bytes], goes_on: Callable[[], bool], *, mixed: bool) -> Outcome:
    """Lets so many visitors ask, one photo after another each, for as long as it goes on."""
    outcome, began = Outcome(), time.perf_counter()

    async def one() -> None:
        # Reading the certificates anew for every visitor would take longer than all their answers.
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, verify=False) as client:
            visitor = Visitor(client, await function_of(client))
            while goes_on():
                is_disturbance = mixed and random.random() < 1 / 3
                await (disturbed if is_disturbance else answered)(visitor, next(photos), outcome)

    await asyncio.gather(*(one() for _ in range(users)))
    outcome.lasted = time.perf_counter() - began
    return outcome


def times(count: int) -> Callable[[], bool]:
    """True so many times."""
    left = iter(range(count))
    return lambda: next(left, None) is not None


def until(seconds: float) -> Callable[[], bool]:
    """True for so long."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def photos_of(is_unique: bool) -> Iterator[bytes]:
    """Photos without end."""
    drawn = [photo_bytes(number) for number in range(8)]
    number = 0
    while True:
        yield unique(drawn[number % 8], number if is_unique else number % 8)
        number += 1


def wear(page: Served, arguments: argparse.Namespace) -> list[str]:
    """All measurements, told as they come; what went wrong."""
    photos = photos_of(arguments.unique)

    def load(users: int, goes_on: Callable[[], bool]) -> Outcome:
        outcome = asyncio.run(visit(page.url, users, photos, goes_on, mixed=arguments.mixed))
        print(f"{users:3} users  {outcome}\n           {page.usage()}", flush=True)
        for error in dict.fromkeys(outcome.errors):
            print(f"           error: {error}")
        return outcome

    print(f"at first   {page.usage()}", flush=True)
    outcomes = [load(arguments.users, times(WARM_UP))]
    warm = page.usage()
    if arguments.minutes:
        outcomes.append(load(arguments.users, until(60 * arguments.minutes)))
    else:
        outcomes.append(load(arguments.users, times(arguments.requests)))
    grown = page.usage().memory - warm.memory
    count = len(outcomes[-1].seconds) or 1
    print(f"growth     {grown / MEGABYTE:.1f} MB, {grown / 1024 / count:.2f} kB a request")
    if not arguments.minutes:
        outcomes += [load(8, times(200)), load(1, times(100))]
    return [error for outcome in outcomes for error in outcome.errors]


def main() -> None:
    """Start the page, wear it out, say how it went."""
    arguments = parse_arguments()
    with served_page("--no-train") as page:
        errors = wear(page, arguments)
        if said := page.log.read_text().strip():
            print(f"the page's own output, at its end:\n{said[-2000:]}")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
