"""Files that are either whole or absent: written beside their place, then moved there."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

SHORT = 240
"""Characters of a nested list or dict that stays on one line."""


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Let ``write`` fill a temporary file in the folder of ``path`` (made if missing), then move it to ``path``.

    Temporary files of processes that were killed while they wrote to the same path are removed.

    Parameters
    ----------
    path : path
    write : callable
        Is given the open file.

    Returns
    -------
    Path

    Raises
    ------
    OSError
        Naming ``path``, which is as it was then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{prefix(path)}{os.getpid()}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    return path


def sync_folder(folder: Path) -> None:
    """Make what was created, moved or removed in a folder outlast a loss of power, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prefix(path: Path) -> str:
    """How temporary files for ``path`` begin on this computer; the process that writes them follows."""
    return f".{path.name}.{platform.node()}-"


def remove_stale(path: Path) -> None:
    """Remove temporary files for ``path`` whose process, of this computer, is gone."""
    if os.name != "posix":  # elsewhere one cannot ask whether a process is there without ending it
        return
    for temporary in path.parent.iterdir():
        if temporary.name.startswith(prefix(path)):
            process = temporary.name.removeprefix(prefix(path)).partition(".")[0]
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                temporary.unlink(missing_ok=True)
            except (ValueError, OverflowError, PermissionError):  # not ours, or of another user's process
                continue


def check_writable(folder: Path) -> None:
    """Raise a ValueError if nothing can be written to ``folder``, or to what it would be made in; leave no trace."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror} ({existing})") from error


def write_json(path: str | Path, data: Any) -> Path:
    """Write plain data as JSON, atomically; NaN and Inf are refused."""
    text = json_text(data) + "\n"
    return write_atomically(path, lambda file: file.write(text.encode()))


def json_text(data: Any, depth: int = 0) -> str:
    """JSON with one line for what is short or holds no other list or dict, and else a line per item."""
    text = json.dumps(data, allow_nan=False)
    items = data.values() if isinstance(data, dict) else data if isinstance(data, (list, tuple)) else ()
    if len(text) <= SHORT or not any(isinstance(item, (dict, list, tuple)) and item for item in items):
        return text
    texts = [json_text(item, depth + 1) for item in items]
    if isinstance(data, dict):
        texts = [f"{json.dumps(str(key))}: {text}" for key, text in zip(data, texts, strict=True)]
    first, last = "{}" if isinstance(data, dict) else "[]"
    margin = "\n" + " " * depth
    return f"{first}{margin} {f',{margin} '.join(texts)}{margin}{last}"
