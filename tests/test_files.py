"""Files are whole or absent, whatever happens to the writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from ramda_theory.files import write_atomically, write_json


def test_a_crash_inside_the_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def crash(file):
        file.write(b"half of the ne")
        file.flush()
        assert path.read_bytes() == b"old"  # nothing shows before it is whole
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, crash)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
    assert write_atomically(path, lambda file: file.write(b"new")) == path
    assert path.read_bytes() == b"new" and list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_crash_before_the_first_file_leaves_none(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "file", lambda file: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_json_is_whole_and_has_no_nan(tmp_path):
    path = write_json(tmp_path / "a.json", [{"x": 1, "y": None}])
    assert json.loads(path.read_text()) == [{"x": 1, "y": None}]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, [float("nan")])
    assert json.loads(path.read_text()) == [{"x": 1, "y": None}]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    """kill -9 in the middle of writing; the file of a process that still writes is left alone."""
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))
    program = (
        "import os, signal, sys\n"
        "from ramda_theory.files import write_atomically\n"
        "def killed(file):\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(sys.argv[1], killed)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2 and path.read_bytes() == b"old"

    def watched(file):
        write_atomically(path, lambda inner: inner.write(b"between"))  # another writer, while this one is at it
        file.write(b"new")

    write_atomically(path, watched)
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path):
    path = write_atomically(tmp_path / "file", lambda file: file.write(b"old"))

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device: .*file") as caught:
        write_atomically(path, full)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"
