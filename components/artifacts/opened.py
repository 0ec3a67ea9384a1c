"""An artifact by the place of its files, wherever that is: in this storage root or in another."""

from __future__ import annotations

from pathlib import Path

from components.artifacts.artifact import Artifact
from components.artifacts.files import filesystem
from components.artifacts.manifest import MANIFEST, BrokenManifest, read_manifest
from components.errors import UserError


def artifact_at(uri: str, cache_dir: Path) -> Artifact:
    """The committed artifact whose files lie at `uri`. UserError when there is none any more, or it cannot be read."""
    folder, _, attempt = uri.rstrip("/").rpartition("/")
    try:
        fs, path = filesystem(folder)
        manifest = read_manifest(fs.cat_file(f"{path}/{MANIFEST}"))
    except (OSError, ValueError, BrokenManifest) as error:
        raise UserError(f"{uri}: holds no artifact any more ({type(error).__name__}: {error})") from None
    if manifest["attempt"] != attempt:
        raise UserError(f"{uri}: was replaced by {folder}/{manifest['attempt']}")
    return Artifact(uri.rstrip("/"), manifest, cache_dir)
