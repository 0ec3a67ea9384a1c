"""What can be known within five seconds, before any server starts: each check gives findings, and nothing is written."""
