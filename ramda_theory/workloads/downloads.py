"""``ramda-theory data``: a published data set, downloaded (resuming what was cut off), checked and unpacked."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ramda_theory.extras import needs
from ramda_theory.workloads.catalogue import CATALOGUE, Entry

CHUNK = 1 << 16
"""Bytes; less than this is lost of what came when a connection breaks."""


def describe(name: str, folder: Path) -> str:
    """What would be downloaded, from where, its size and licence, in a few lines.

    Parameters
    ----------
    name : str
        A key of `CATALOGUE`.
    folder : path
        Where it would go.

    Returns
    -------
    str
    """
    entry = find_entry(name)
    lines = [f"{entry.title}: {entry.size}, licence: {entry.licence}", f"published at {entry.source}"]
    lines += [f"  {url} ({checksum.partition(':')[0]})" for url, checksum in entry.files]
    return "\n".join([*lines, f"into {folder}: {entry.layout}"])


def find_entry(name: str) -> Entry:
    """The entry of a name; ValueError with all names if there is none."""
    if name not in CATALOGUE:
        raise ValueError(f"data must be one of {', '.join(CATALOGUE)}, got {name!r}")
    return CATALOGUE[name]


def download(name: str, folder: Path, say: Callable[[str], Any] = print) -> list[Path]:
    """Download a data set and unpack it.

    Parameters
    ----------
    name : str
        A key of `CATALOGUE`.
    folder : path
        Archives stay there too; a file that is there with the right checksum is not downloaded again.
    say : callable
        Takes a line about every file.

    Returns
    -------
    list of Path
        The files as downloaded.

    Raises
    ------
    ValueError
        If it may not be downloaded, or a checksum is wrong.
    OSError
        If the connection fails; the same call resumes.
    """
    entry = find_entry(name)
    if not entry.files:
        raise ValueError(f"{entry.title} cannot be downloaded without registration: get it from {entry.source}")
    with needs("workloads"):
        import pooch
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for url, checksum in entry.files:
        file = url.rpartition("/")[2]
        say(f"{url} -> {folder / file}")
        path = Path(
            pooch.retrieve(url, checksum, fname=file, path=folder, downloader=Resuming(folder / f"{file}.part"))
        )
        (folder / f"{file}.part").unlink(missing_ok=True)
        unpack(path, folder)
        found.append(path)
    return found


class Resuming:
    """A downloader for pooch that keeps what came of a file and asks for the rest only.

    Parameters
    ----------
    part : path
        Where the beginning of the file is kept.
    """

    def __init__(self, part: Path) -> None:
        self.part = part

    def __call__(self, url: str, output_file: str, caller: Any) -> None:
        """Complete the part, then move it to ``output_file``, where pooch checks it and removes it if it is wrong."""
        import requests
        from tqdm import tqdm

        begun = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Range": f"bytes={begun}-"} if begun else {}
        try:
            with requests.get(url, stream=True, timeout=60, headers=headers) as answer:
                if answer.status_code != 416:  # nothing is left to ask for
                    answer.raise_for_status()
                    resumed = answer.status_code == 206
                    left = int(answer.headers.get("Content-Length", 0))
                    with (
                        open(self.part, "ab" if resumed else "wb") as file,
                        tqdm(total=left + begun * resumed, initial=begun * resumed, unit="B", unit_scale=True) as bar,
                    ):
                        for chunk in answer.iter_content(CHUNK):
                            file.write(chunk)
                            bar.update(len(chunk))
                        arrived = file.tell() - begun * resumed
                    if left and arrived != left:
                        raise OSError(
                            f"{url}: the connection ended after {arrived} of {left} bytes; run it again to resume"
                        )
        except requests.RequestException as error:
            raise OSError(f"{url}: {error}; run it again to resume") from error
        os.replace(self.part, output_file)


def unpack(path: Path, folder: Path) -> None:
    """Extract an archive beside itself; names that would leave the folder are refused."""
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            for name in packed.namelist():
                if not (folder / name).resolve().is_relative_to(folder.resolve()):
                    raise ValueError(f"{path} would write {name} outside {folder}")
            packed.extractall(folder)
