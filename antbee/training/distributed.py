"""Data-parallel training in several processes, started by torchrun."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from antbee.training.recipe import TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class DistributedContext:
    """Rank and device of this process, and the number of processes; by default one process on the CPU."""

    device: torch.device = torch.device("cpu")
    rank: int = 0
    local_rank: int = 0  # among the processes on this machine
    count: int = 1
    local_count: int = 1  # processes on this machine

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which prints and writes."""
        return self.rank == 0

    def share(self, positions: Tensor) -> Tensor:
        """This process's share of a batch of positions: every `count`-th."""
        return positions[self.rank :: self.count]

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes (all-reduce)."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def from_first(self, value: Any) -> Any:
        """Broadcasts a value of the first process: the others may run on another machine, with other files."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box)
        return box[0]

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks (all-gather)."""
        if self.count == 1:
            return [value]
        values = [value] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def share_buffers(self, module: nn.Module) -> None:
        """Broadcasts the first process's buffers: BatchNorm's statistics depend on each process's share of the data."""
        if self.count > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Runs the block in the first process, then in one process of every machine, then in the rest.

        So files are downloaded once where the machines share a disk, and once a machine where they don't.
        """
        turn = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        self._wait(turn)
        yield
        self._wait(2 - turn)

    def _wait(self, times: int) -> None:
        for _ in range(times if self.count > 1 else 0):
            torch.distributed.barrier()


@contextlib.contextmanager
def joined(device: torch.device, *, patience: timedelta | None = None) -> Iterator[DistributedContext]:
    """The context of this process; under torchrun its process group is initialised for the block.

    `patience` is how long processes wait for each other; None is torch's own limit, 10 or 30 minutes.
    """
    if "LOCAL_RANK" not in os.environ:
        yield DistributedContext(device)
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    try:
        store, rank, count = next(torch.distributed.rendezvous("env://"))  # type: ignore[attr-defined]
        # torchrun may keep its store when it restarts processes: without a prefix they would read the addresses of
        # processes that have ended.
        store = torch.distributed.PrefixStore(f"start {_restarts()}", store)  # type: ignore[attr-defined]
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=patience)
        yield DistributedContext(device, rank, local_rank, count, int(os.environ["LOCAL_WORLD_SIZE"]))
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower():
            raise TrainingError(
                "another process of this run was lost: start it again with --resume, or give torchrun --max-restarts"
            ) from error
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def is_restarted() -> bool:
    """Whether torchrun has restarted these processes (`--max-restarts`)."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
