"""The errors that a user can mend: one readable line each, no traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something in a config, a data set or the surroundings is wrong; the message names it and says what to do."""


class ConfigError(UserError):
    """A configuration file or override is wrong; the message names the file, the key and the nearest known key."""
