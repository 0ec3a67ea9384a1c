"""Children that end with their parent, and run nothing of ours before they are themselves."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.servers.processes import start_child, wait_until

FORKED_COPY_DIES = """
import os, sys, threading
from pathlib import Path
from flows.servers.processes import start_child
os.register_at_fork(after_in_child=lambda: os._exit(11))  # as gRPC's own handler does in a process that uses it
ended = []
thread = threading.Thread(target=lambda: ended.append(start_child(["true"], Path(sys.argv[1])).wait()))
thread.start()
thread.join()
print(ended)
"""
WAITS = """
import sys, time
from pathlib import Path
from flows.servers.processes import start_child
print(start_child(["sleep", "600"], Path(sys.argv[1])).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.case("R8")
def test_a_child_starts_where_a_forked_copy_of_this_process_would_die(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORKED_COPY_DIES, str(tmp_path / "log")], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout == "[0]\n", ran.stderr


def test_a_child_is_the_command_itself_and_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", WAITS, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert wait_until(lambda: child.cmdline() == ["sleep", "600"], 20.0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 20.0)


def test_a_child_whose_parent_is_gone_before_it_can_ask_does_not_start(tmp_path: Path) -> None:
    from components.processes import parent_death

    made = tmp_path / "made"
    subprocess.run([sys.executable, parent_death.__file__, "1", "touch", str(made)], check=True, timeout=60)
    assert not made.exists()


def test_what_a_child_says_is_in_its_log(tmp_path: Path) -> None:
    start_child(["sh", "-c", "echo out; echo err >&2"], tmp_path / "logs" / "log").wait()
    assert (tmp_path / "logs" / "log").read_text() == "out\nerr\n"
