"""Where the weights of a model came from: its starting weights, and those that they were trained from in turn."""

from typing import Annotated

from pydantic import Field

from antbee.models.metrics import Part, Text

MOST_EARLIER = 20  # weights that a config lists


class EarlierWeights(Part):
    """Weights that the starting weights were trained from, directly or over other models."""

    name: str | None = None
    digest: Text | None = None


class WeightsInfo(Part):
    """The starting weights."""

    name: str | None = None
    digest: Text | None = None
    base_model: Text | None = None  # Hub id of the same weights, or of the nearest ones of the chain that have one
    license: Text | None = None  # as the Hub names it
    stands_in_for: Text | None = None  # the network whose weights could not be downloaded
    earlier: Annotated[list[EarlierWeights], Field(max_length=MOST_EARLIER)] | None = None  # the latest first

    @property
    def origin(self) -> str | None:
        """The name of the weights that the chain of models began with."""
        return self.earlier[-1].name if self.earlier else self.name

    def as_earlier(self) -> list[EarlierWeights]:
        """The chain of a model that goes on from one with these starting weights; of a long chain not the middle."""
        chain = [EarlierWeights(name=self.name, digest=self.digest), *(self.earlier or [])]
        return chain if len(chain) <= MOST_EARLIER else [*chain[: MOST_EARLIER - 1], chain[-1]]
