"""Train without Ray, MLflow or Prefect: one process, or as many as `torchrun` starts. Needs torch and little else.

    python -m components.train.launch.torchrun --config train.yaml --shards DIR --base DIR --out DIR [train.KEY=VALUE ...]
    torchrun --nproc-per-node 8 -m components.train.launch.torchrun ...

`--shards` and `--base` are the folders that preprocess and base left (or any model directory). Checkpoints
lie in `OUT/checkpoints`, what was measured in `OUT/metrics.jsonl`; the same command resumes from the newest checkpoint.
`touch OUT/checkpoint-now` makes one more.

Exit status: 0 all steps are trained; 75 stopped by SIGTERM, Ctrl-C or `OUT/stop-now`, the checkpoint is whole, try again; 2
settings or data are wrong, or training diverged: trying again would not help; 70 a rank hung, see `OUT/hangs`; 1 anything
else.
`torchrun --max-restarts N` starts all ranks again after any of them but 0; under it, 75 and 2 reach the log only.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

STOPPED = 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; returns the exit status."""
    options = parse(arguments)
    with stopped_at_once():
        from components.train.launch.rank import train_rank  # torch takes seconds, in which a signal may come

        return train_rank(options)


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """While the block runs, SIGTERM and Ctrl-C end the process in a sentence; training has handlers of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> NoReturn:
        if int(os.environ.get("RANK", 0)) == 0:
            os.write(2, b"stopped; the same command resumes\n")
        os._exit(STOPPED)  # imports and half-made process groups have nothing that must be closed

    previous = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="components.train.launch.torchrun", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--config", required=True, metavar="YAML", help="its section `train` counts")
    parser.add_argument("--shards", required=True, metavar="DIR", help="what preprocessing left")
    parser.add_argument("--base", required=True, metavar="DIR", help="the model to start from")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("overrides", nargs="*", metavar="train.KEY=VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
