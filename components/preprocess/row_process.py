"""Rows are encoded in a process of their own: a decoder that crashes or never ends costs its row by name, never the step.

Native decoders read what anybody may have written. The process that runs them is told one row at a time; when it dies, or
takes too long, another is started, the row is tried once more by itself (a death may have had another cause, such as the
machine's memory), and is then a bad row.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import traceback
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from components.errors import Unusable, UserError
from components.preprocess.encode import Encoder, identity
from plm_model.media.video import load_libraries

WAIT_FACTOR = 10  # how much longer than its limit of computing a row may take by the clock: other work, slow storage
START_SECONDS = 300  # for its imports from a cold disk
SECONDS = 20.0


class Died(Exception):
    """The process ended, or was ended, while it worked on a row; the message says how, `final` that a second try is idle."""

    def __init__(self, how: str, final: bool = False) -> None:
        super().__init__(how)
        self.final = final


class RowProcess:
    """Encodes rows as `Encoder.encode` does, each with at most `seconds` of computing; `use` says with which encoder."""

    def __init__(self) -> None:
        self.encoder, self.seconds = b"", SECONDS
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None

    def use(self, encoder: bytes, seconds: float) -> None:
        """Encode with this pickled Encoder, in today's environment; a process that runs goes on, which spares the imports."""
        if (encoder, seconds) == (self.encoder, self.seconds):
            return
        if seconds != self.seconds:
            self.close()
        self.encoder, self.seconds = encoder, seconds
        if self.connection is not None:
            self._greet(self.connection)

    def encode(self, raw: bytes, source: str) -> dict[str, Any]:
        """The row of a shard. Unusable for one that cannot be used, whatever that did to the process; UserError, OSError."""
        try:
            answer: dict[str, Any] | BaseException = self._ask(raw, source)
        except Died as death:
            answer = self._again(raw, source, death)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _again(self, raw: bytes, source: str, death: Died) -> Any:
        if not death.final:
            try:
                return self._ask(raw, source)
            except Died as second:
                death = second
        id, place, media = identity(raw)
        return Unusable(f"{media}: {death}" if media else str(death), id, place)

    def _ask(self, *row: Any) -> Any:
        connection = self._started()
        try:
            connection.send(row)
            if connection.poll(self.seconds * WAIT_FACTOR):
                return connection.recv()
        except (EOFError, ConnectionError):
            raise self._death() from None
        self.close()
        raise Died(f"no answer within {self.seconds * WAIT_FACTOR:g} s", final=True)

    def _started(self) -> Connection:
        if self.connection is None:
            self.connection, theirs = Pipe()
            module = "components.preprocess.row_process"
            command = [sys.executable, "-m", module, str(theirs.fileno()), repr(self.seconds)]
            paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
            environment = {**os.environ, "PYTHONPATH": paths}
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
            theirs.close()
            self._greet(self.connection)
        return self.connection

    def _greet(self, connection: Connection) -> None:
        """Hand over the encoder; RuntimeError when the process does not start, which is no row's doing."""
        with contextlib.suppress(EOFError, ConnectionError):
            connection.send((self.encoder, {**os.environ}))
            if connection.poll(START_SECONDS):
                connection.recv()
                return
        self.close()
        raise RuntimeError("the process that encodes rows did not start")

    def _death(self) -> Died:
        """What is known of how the process ended."""
        assert self.process is not None
        self.close(wait=5)
        code = self.process.returncode
        if code == -signal.SIGXCPU:
            return Died(f"takes more than {self.seconds:g} s; preprocess.row_seconds may allow more", final=True)
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Died(f"ended the process that decodes it ({how})")

    def close(self, wait: float = 0) -> None:
        """End the process, after `wait` seconds for it to end by itself."""
        if self.connection is None or self.process is None:
            return
        self.connection.close()
        self.connection = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(wait)
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()


@functools.cache
def row_process() -> RowProcess:
    """The one of this process: the next chunk finds it running, and it is ended before Python is taken down."""
    process = RowProcess()
    atexit.register(process.close)
    return process


def serve(connection: Connection, seconds: float) -> None:
    """Answer (raw, source) with a row, or the exception in its place, until the other side is gone; before that comes
    (pickled encoder, environment)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal; this one ends with its parent
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(EOFError, ConnectionError):
        Image.init()  # the formats' decoders: their import is not the first row's time
        while True:
            asked = connection.recv()
            limit_computing(math.inf)
            if isinstance(asked[1], dict):
                os.environ.update(asked[1])
                encoder = pickle.loads(asked[0])
                connection.send(None)
                continue
            if b'"video"' in asked[0]:
                load_libraries()
            limit_computing(seconds)
            connection.send(answer(encoder, *asked))


def limit_computing(seconds: float) -> None:
    """Let the system end this process, even within native code, after so many more seconds of computing."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = hard if seconds == math.inf else math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def answer(encoder: Encoder, raw: bytes, source: str) -> dict[str, Any] | BaseException:
    """The row, or what is to be raised; a fault of the program is a bad row, too, that names our own line."""
    try:
        return encoder.encode(raw, source)
    except (Unusable, UserError, OSError) as error:
        return error.with_traceback(None)
    except MemoryError:
        reason = "needs more memory than this machine has"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"a fault of ours, {type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {error}"
    id, place, media = identity(raw)
    return Unusable(f"{media}: {reason}" if media else reason, id, place)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), float(sys.argv[2]))
