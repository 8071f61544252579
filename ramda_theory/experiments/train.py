"""Train a network on the digits with any of the optimizers, and see its structure settle."""

from __future__ import annotations

from pathlib import Path

from ramda_theory.drawing.provenance import record_figure
from ramda_theory.experiments.train_session import Session, structured_point
from ramda_theory.experiments.train_settings import OPTIMIZERS, UNREGULARIZED, TrainResult, TrainSettings, table
from ramda_theory.files import write_atomically

__all__ = [
    "OPTIMIZERS",
    "UNREGULARIZED",
    "Session",
    "TrainResult",
    "TrainSettings",
    "table",
    "train",
    "write_compact",
]


def train(
    settings: TrainSettings,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    checkpoint_every: int = 10,
    command: str | None = None,
) -> TrainResult:
    """Train, and record loss, accuracy and structure after every epoch.

    Parameters
    ----------
    settings : TrainSettings
    out : path, optional
        Folder for ``checkpoint.pt``, ``train.json`` and ``train.png``.
    resume : bool
        Go on from the checkpoint in ``out``: to the same weights, bit for bit, as without the interruption.
    progress : bool
        Show a bar with loss, accuracy and sparsity.
    checkpoint_every : int
        Epochs between checkpoints; there is one at the end and, if possible, when the run is interrupted.
    command : str, optional
        What ``train.json`` names as the command that made it.

    Returns
    -------
    TrainResult

    Raises
    ------
    ValueError
        If there is nothing to resume, the checkpoint is of other settings, damaged or of another version, or, without
        ``resume``, ``out`` holds a run already.
    OSError
        If the disk is full, say; the checkpoint before is whole.
    RuntimeError
        If a gradient is not finite.
    """
    path = None if out is None else Path(out) / "checkpoint.pt"
    if path is not None and path.exists() and not resume:
        raise ValueError(f"{path.parent} holds a run already: go on from it with --resume, or give another --out")
    session = Session(settings)
    if resume:
        if path is None or not path.exists():
            raise ValueError(f"nothing to resume: there is no checkpoint {path}")
        session.load(path)
    bar = None
    if progress:
        from tqdm import tqdm

        bar = tqdm(total=settings.epochs, initial=len(session.history), desc=settings.name, unit="epoch", leave=False)
    saved = len(session.history)
    try:
        while len(session.history) < settings.epochs:
            session.epoch()
            if bar is not None:
                bar.update()
                bar.set_postfix_str(session.summary())
            if path is not None and len(session.history) % checkpoint_every == 0:
                session.save(path)
                saved = len(session.history)
    finally:
        if bar is not None:
            bar.close()
        if path is not None and session.whole and len(session.history) > saved:
            session.save(path)
    result = session.result()
    if out is not None:
        from ramda_theory.experiments.train_figure import plot_training

        record_figure(out, "train", command=command, seeds=[settings.seed], data=result.to_dict())
        plot_training(result, Path(out) / "train")
    return result


def write_compact(settings: TrainSettings, out: Path) -> str:
    """Write the small model of a finished run to ``compact.safetensors``, its table to ``compact.txt``; the table.

    `load_compact` with `network` as the factory reads it.

    Raises
    ------
    ValueError
        If ``out`` holds no checkpoint of these settings.
    """
    from ramda_theory.model import compact

    session = Session(settings)
    session.load(out / "checkpoint.pt")
    images = session.data["test"].images
    with structured_point(session.optimizer):
        small = compact(session.model, images[:2])
        text = f"{small.table()}\nlargest relative difference in float64: {small.check(images):.1e}"
    small.save(out / "compact.safetensors")
    write_atomically(out / "compact.txt", lambda file: file.write(f"{text}\n".encode()))
    return f"{text}\nwrote {out / 'compact.safetensors'} and {out / 'compact.txt'}"
