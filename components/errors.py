"""The errors that a user can mend: one readable line each, no traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something in a config, a data set or the surroundings is wrong; the message names it and says what to do."""


class ConfigError(UserError):
    """A configuration file or override is wrong; the message names the file, the key and the nearest known key."""


class Unusable(ValueError):
    """A row that cannot be used: the reason, and its id and the user's own line where they are known."""

    def __init__(self, reason: str, id: str | None = None, place: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.id = id
        self.place = place


class StorageError(UserError, OSError):
    """A storage root does not give or take what it should; one line that names the URI and the endpoint.

    Made as `StorageError(errno, line)`. It is an OSError too: to code that tells a storage from the data in it, it is the
    storage's.
    """

    def __str__(self) -> str:
        return str(self.args[1])
