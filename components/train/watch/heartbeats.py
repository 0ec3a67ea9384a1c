"""Where ranks leave what they tell of themselves: a store of its own at rank 0, so that no collective operation is needed.

Rank 1 keeps a copy of what rank 0 says: a stopped rank 0 takes the store with it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from components.train.model.parallel import Group
from components.train.watch.hang_report import Heartbeat

TIMEOUT = timedelta(seconds=30)
COPY_SECONDS = 3.0
KEEPERS = (0, 1)  # the ranks that fetch stacks: one of them writes the report, as long as one of them lives


class SignStore:
    """Signs and stacks by rank. `exchange` talks to rank 0 and may block; the rest only looks at what it has brought."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._store = tcp_store(group) if group.world > 1 else None
        self._signs: dict[int, tuple[Heartbeat, float]] = {}  # the sign, and when it last changed, by our clock
        self._stacks: dict[int, str] = {}
        self._copied = 0.0

    def exchange(self, sign: Heartbeat, stacks: str, want_all: bool) -> None:
        """Leave this rank's sign and stacks; fetch those of the others if wanted."""
        self._note(sign)
        self._stacks[sign.rank] = stacks
        if self._store is None:
            return
        self._store.set(f"sign/{sign.rank}", json.dumps(vars(sign)))
        self._store.set(f"stacks/{sign.rank}", stacks)
        if want_all:
            for rank in range(self.group.world):
                self._fetch(rank)
        elif self.group.rank == 1 and time.monotonic() - self._copied > COPY_SECONDS:
            self._copied = time.monotonic()
            self._fetch(0)

    def since(self, moment: float) -> tuple[dict[int, Heartbeat], list[int]]:
        """The last sign of each rank, and the ranks whose sign has not changed since `moment` of the monotonic clock."""
        heard = dict(self._signs)
        silent = [rank for rank in range(self.group.world) if heard.get(rank, (None, 0.0))[1] <= moment]
        if self.group.rank in silent:  # our own words do not get through: it is the store that is silent, at rank 0
            silent = [0]
        return {rank: sign for rank, (sign, _) in heard.items()}, silent

    def stacks(self, rank: int) -> str:
        """The last stacks of a rank."""
        return self._stacks.get(rank, "  no stack was heard of")

    def _fetch(self, rank: int) -> None:
        assert self._store is not None
        if self._store.check([f"stacks/{rank}"]):
            self._note(Heartbeat(**json.loads(self._store.get(f"sign/{rank}"))))
            if self.group.rank in KEEPERS:
                self._stacks[rank] = self._store.get(f"stacks/{rank}").decode()

    def _note(self, sign: Heartbeat) -> None:
        known = self._signs.get(sign.rank)
        if known is None or known[0].at != sign.at:
            self._signs[sign.rank] = (sign, time.monotonic())


def tcp_store(group: Group) -> Any:
    """A store at rank 0 that all ranks reach."""
    place: list[Any] = [None]
    if group.rank == 0:
        host = os.environ.get("MASTER_ADDR") or socket.gethostname()
        store = dist.TCPStore(host, 0, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
        place = [(host, store.port)]
    dist.broadcast_object_list(place)
    if group.rank == 0:
        return store
    host, port = place[0]
    return dist.TCPStore(host, port, is_master=False, timeout=TIMEOUT, wait_for_workers=False)
