"""What our modules warn of is seen, although Prefect's logging comes after and is kept quiet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flows.servers.environment import QUIET

SCRIPT = """
import logging
from flows.cli import main
try:
    main(["--version"])
except SystemExit:
    pass
main(["verify", "storage.root=STATE"])
from prefect.logging.configuration import setup_logging
setup_logging()
logging.getLogger("components.tracking").warning("tracking is away:\\n\\x1b[2J%s", "later")
"""


def test_a_warning_is_one_line_after_prefect_has_set_up_its_logging(tmp_path: Path) -> None:
    environment = {**os.environ, **QUIET, "PREFECT_HOME": str(tmp_path)}
    script = SCRIPT.replace("STATE", str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stderr.splitlines() == [r"warning: tracking is away: \x1b[2Jlater"]
