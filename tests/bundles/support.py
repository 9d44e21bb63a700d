"""A bundle put together by hand, with a tiny network: what a bundle needs, without a pipeline."""

import hashlib
import json
from pathlib import Path
from typing import Any


def rehash(folder: Path, **changes: Any) -> Path:
    """Write `bundle.json` anew for the files that are there, as someone who edits a bundle would."""
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("bundle.json", "README.md")
    }
    values = {"format": "ocd-bundle", "version": 1, "code_version": "0.0.9", "files": files, **changes}
    (folder / "bundle.json").write_text(json.dumps(values))
    return folder


def edit_json(path: Path, key: str, value: Any) -> None:
    """Set a dotted key."""
    values = json.loads(path.read_text())
    *groups, last = key.split(".")
    place = values
    for group in groups:
        place = place[group]
    place[last] = value
    path.write_text(json.dumps(values))
