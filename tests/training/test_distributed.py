"""Several processes: how they share a batch, and what they say when one is lost."""

import pytest
import torch
from training_helpers import Points, new_head

from antbee.training import trainer
from antbee.training.distributed import DistributedContext, joined
from antbee.training.recipe import Schedule, TrainingError


def test_processes_share_a_batch_without_omission_or_overlap():
    batch = torch.arange(11)
    shares = [DistributedContext(rank=rank, count=3).share(batch) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == batch.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_lost_process_is_a_training_error_and_other_exceptions_stay_as_they_are(monkeypatch):
    for name, value in {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url: iter([(torch.distributed.HashStore(), 0, 2)]))
    for name in ("init_process_group", "is_initialized", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *arguments, **options: False)

    def join_and_raise(error):
        with joined(torch.device("cpu")):
            raise error

    with pytest.raises(TrainingError, match="another process of this run was lost: start it again with --resume"):
        join_and_raise(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"))
    with pytest.raises(RuntimeError, match="another error"):
        join_and_raise(RuntimeError("another error"))


def test_a_single_process_joins_no_process_group(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with joined(torch.device("cpu")) as process, process.in_turn():
        assert process.is_first
        assert process.from_first("a value") == "a value"
    assert not torch.distributed.is_initialized()


def test_more_processes_than_examples_in_a_batch_are_an_error():
    context = DistributedContext(count=3)
    with pytest.raises(TrainingError, match="batches of 2 can't be shared by 3 processes: raise --batch-size"):
        trainer.fit_without_validation(new_head(), Points(4), Schedule(1, 2, 0.1), context=context)
