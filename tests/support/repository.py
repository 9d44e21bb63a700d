"""The repository that is tested: the files that are part of it, whatever else lies in the folder."""

import subprocess
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
# an unpacked archive has no git to ask: what the pipeline and tools write is then left out by name
_MADE = {".venv", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__", "build", "dist"}


@cache
def repository_files() -> tuple[str, ...]:
    """What git tracks, as it is in the working tree: relative paths, sorted. A user's own files are not among them."""
    listed = subprocess.run(["git", "ls-files", "--cached", "-z"], cwd=REPO, check=False, capture_output=True)
    if listed.returncode == 0 and (REPO / ".git").exists():
        names = filter(None, listed.stdout.decode().split("\0"))
    else:
        found = (path.relative_to(REPO) for path in REPO.rglob("*"))
        names = (
            str(path)
            for path in found
            if not _MADE & set(path.parts)
            and (path.parts[0] not in ("data", "reports", "tmp") or path.name == "README.md")
            and not path.parts[0].endswith(".egg-info")
            and path.name != "dvc.lock"
        )
    return tuple(sorted(name for name in names if (REPO / name).is_file()))


def files_in(folder: str, suffix: str) -> list[Path]:
    """The files of the repository that lie in a folder and end so."""
    return [REPO / name for name in repository_files() if Path(name).parent == Path(folder) and name.endswith(suffix)]
