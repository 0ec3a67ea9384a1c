"""Signals and Ray: its processes are out of the way of those to our process group, and it takes none of ours.

Who stops a run often stops its whole group: Prefect's worker does, and a shell's job control. Ray's processes would end at
once, and with them the workers that are to write a last checkpoint; so each of them has a group of its own. They end
when this process has closed Ray, or has died.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any


@contextlib.contextmanager
def groups_of_their_own() -> Iterator[None]:
    """Each of Ray's processes that starts meanwhile leads a process group. Ray has no setting for it."""
    from ray._private import services

    module: Any = services  # a class in it is replaced
    usual = module.ConsolePopen
    module.ConsolePopen = partial(usual, process_group=0)
    try:
        yield
    finally:
        module.ConsolePopen = usual


@contextlib.contextmanager
def sigterm_as_before() -> Iterator[None]:
    """After the block SIGTERM is heard by who heard it before; `ray.init` puts handlers of its own there, in Python and C++."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
