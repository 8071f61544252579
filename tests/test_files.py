"""Files are whole or absent, whatever happens to the writer."""

from __future__ import annotations

import json

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
