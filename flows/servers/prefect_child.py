"""The process of our Prefect server: serves on a socket that its parent opened, and keeps when this process ends."""

from __future__ import annotations

import socket
import sys
from pathlib import Path


def main() -> None:
    """`python prefect_child.py FD`, where FD is the number of an open, listening socket."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # this `flows`, not one of the user's folder
    import uvicorn

    config = uvicorn.Config("flows.servers.prefect_door:create_app", factory=True, log_level="error")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
