"""Downloading against a server on this machine: checksums, resuming, unpacking, asking first."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading

import files
import pytest

from ramda_theory.cli import main
from ramda_theory.workloads.catalogue import CATALOGUE, Entry
from ramda_theory.workloads.downloads import download

pytest.importorskip("pooch")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves ranges, and breaks off in the middle as often as it is told to."""

    breaks = 0
    asked: list = []  # noqa: RUF012

    def do_GET(self):
        whole = open(self.translate_path(self.path), "rb").read()  # noqa: SIM115
        asked = self.headers.get("Range")
        type(self).asked.append(asked)
        start = int(asked[6:].rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        rest = whole[start:]
        if type(self).breaks:
            type(self).breaks -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def published(tmp_path, monkeypatch):
    """CIFAR-10's layout as an archive on a server, under the name "noise"."""
    source = tmp_path / "server"
    source.mkdir()
    files.write_cifar10(source)
    with tarfile.open(source / "noise.tar.gz", "w:gz") as archive:
        archive.add(source / "cifar-10-batches-py", "cifar-10-batches-py")
    digest = hashlib.sha256((source / "noise.tar.gz").read_bytes()).hexdigest()
    Handler.breaks, Handler.asked = 0, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(source)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/noise.tar.gz"
    entry = Entry("Noise", "cifar-10-batches-py", "1 MB", "none", "nowhere", ((url, f"sha256:{digest}"),))
    monkeypatch.setitem(CATALOGUE, "noise", entry)
    yield url, digest
    server.shutdown()
    server.server_close()


def test_a_data_set_is_downloaded_once_checked_and_unpacked(published, tmp_path):
    out = tmp_path / "data"
    download("noise", out, say=lambda line: None)
    assert (out / "cifar-10-batches-py" / "test_batch").is_file()
    assert not list(out.glob("*.part"))
    download("noise", out, say=lambda line: None)
    assert len(Handler.asked) == 1


def test_what_was_cut_off_is_resumed(published, tmp_path):
    out = tmp_path / "data"
    Handler.breaks = 1
    with pytest.raises(OSError, match="run it again to resume"):
        download("noise", out, say=lambda line: None)
    part = next(out.glob("*.part"))
    assert part.stat().st_size > 0 and not (out / "noise.tar.gz").exists()
    begun = part.stat().st_size
    download("noise", out, say=lambda line: None)
    assert Handler.asked == [None, f"bytes={begun}-"]
    assert hashlib.sha256((out / "noise.tar.gz").read_bytes()).hexdigest() == published[1]


def test_a_wrong_checksum_is_refused_and_forgotten(published, tmp_path, monkeypatch):
    entry = CATALOGUE["noise"]
    wrong = Entry(
        entry.title, entry.layout, entry.size, entry.licence, entry.source, ((published[0], "sha256:" + "0" * 64),)
    )
    monkeypatch.setitem(CATALOGUE, "noise", wrong)
    out = tmp_path / "data"
    with pytest.raises(ValueError, match="hash"):
        download("noise", out, say=lambda line: None)
    assert list(out.iterdir()) == []


def test_nothing_is_downloaded_without_a_yes(published, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["data", "noise", "--data", str(tmp_path / "data")]) == 2
    written = capsys.readouterr()
    assert "licence: none" in written.out and published[0] in written.out and "--yes" in written.err
    assert Handler.asked == [] and not (tmp_path / "data").exists()
    assert main(["data", "noise", "--data", str(tmp_path / "data"), "--yes"]) == 0
    assert (tmp_path / "data" / "cifar-10-batches-py" / "test_batch").is_file()


def test_what_needs_a_registration_is_not_downloaded(tmp_path, capsys):
    assert main(["data", "imagenet", "--data", str(tmp_path), "--yes"]) == 2
    assert "image-net.org" in capsys.readouterr().err
    assert main(["data", "imagenot", "--data", str(tmp_path)]) == 2
    assert "data must be one of mnist" in capsys.readouterr().err
