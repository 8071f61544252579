"""Checkpoints of workloads: one file, and for a sharded run a folder beside it with what is cut among processes."""

from __future__ import annotations

import io
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramda_theory.experiments.processes import Processes
from ramda_theory.files import sync_folder, write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

States = tuple[dict[str, Any], dict[str, Any]]
"""The state dicts of a model and of its optimizer."""
REQUIRED = {"plan", "steps", "model", "optimizer", "schedule", "tracker", "history", "clocks"}


def saved_states(path: Path, model: nn.Module, optimizer: Any, processes: Processes) -> dict[str, Any]:
    """What a checkpoint holds of model and optimizer; every process must call.

    Of a sharded run that is what every process has whole.  The rest is in a new folder beside ``path`` then, which
    "pieces" names.
    """
    if not processes.shard:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    from ramda_theory.experiments.pieces import write_pieces

    whole, pieces = split(model.state_dict(), optimizer.state_dict())
    name = processes.agreed(f"{path.stem}.{uuid.uuid4().hex[:12]}.dcp")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pieces(path.with_name(name), pieces)
    return {**whole, "pieces": {"folder": name, "names": sorted(pieces)}}


def split(model_state: dict[str, Any], optimizer_state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Both states without what is cut among processes, and that by name."""
    from ramda_theory.kernels.sharding import is_sharded

    pieces: dict[str, Tensor] = {}

    def whole(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
        pieces.update({f"{prefix}.{key}": value for key, value in state.items() if is_sharded(value)})
        return {key: value for key, value in state.items() if not is_sharded(value)}

    states = {number: whole(f"optimizer.{number}", state) for number, state in optimizer_state["state"].items()}
    return {"model": whole("model", model_state), "optimizer": {**optimizer_state, "state": states}}, pieces


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the file atomically, then remove the folders that it does not name."""
    import torch

    whole = io.BytesIO()  # torch turns what fails in writing, such as a full disk, into an error of its own
    torch.save(state, whole)
    write_atomically(path, lambda file: file.write(whole.getbuffer()))
    named = state.get("pieces", {}).get("folder")
    old = [folder for folder in path.parent.glob(f"{path.stem}.*.dcp") if folder.name != named]
    if old:
        sync_folder(path.parent)  # a loss of power must not bring back the file that named them
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint's file; ValueError if it is none."""
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        lacking = REQUIRED - set(state)
        pieces = state.get("pieces", {"folder": "none", "names": []})
        beside = Path(pieces["folder"]).name == pieces["folder"] and all(type(name) is str for name in pieces["names"])
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # what is damaged fails in the unpickler, anywhere and with anything
        raise ValueError(f"{path} is not a checkpoint of a workload ({type(error).__name__})") from error
    if lacking:
        raise ValueError(f"{path} is not a checkpoint of a workload: it lacks {', '.join(sorted(lacking))}")
    if not beside:
        raise ValueError(f"{path} is not a checkpoint of a workload: it names no folder beside it")
    return state


def read_states(state: dict[str, Any], path: Path, model: nn.Module, optimizer: Any, processes: Processes) -> States:
    """The states in a checkpoint, with what its folder holds, cut as in this run; every process must call.

    Raises
    ------
    ValueError
        Naming the folder, if it is missing, damaged, or of another model or optimizer.
    """
    if "pieces" not in state:
        return state["model"], state["optimizer"]
    from ramda_theory.experiments.pieces import read_pieces

    folder, names = path.with_name(state["pieces"]["folder"]), state["pieces"]["names"]
    own = {f"model.{key}": value for key, value in model.state_dict().items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own |= {f"optimizer.{number}": parameter for number, parameter in enumerate(parameters)}
    like = {}
    for name in names:
        key = name if name.startswith("model.") else name.rpartition(".")[0]
        if key not in own:
            raise ValueError(f"{folder} is of another run: there is no {key} here")
        like[name] = own[key].detach()
    return joined(state, read_pieces(folder, like, alone=not processes.shard))


def joined(state: dict[str, Any], pieces: dict[str, Tensor]) -> States:
    """The inverse of `split`."""
    model_state, states = dict(state["model"]), {key: dict(own) for key, own in state["optimizer"]["state"].items()}
    for name, value in pieces.items():
        kind, _, key = name.partition(".")
        if kind == "model":
            model_state[key] = value
        else:
            number, _, key = key.partition(".")
            states.setdefault(int(number), {})[key] = value
    return model_state, {**state["optimizer"], "state": states}


def load_states(model: nn.Module, optimizer: Any, states: States, distribute: bool) -> None:
    """Take over states; ``distribute`` whole ones to a sharded model and its optimizer."""
    model_state, optimizer_state = states
    if not distribute:
        model.load_state_dict(model_state)
        optimizer.load_state_dict(optimizer_state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    options = StateDictOptions(full_state_dict=True)
    named = by_name(optimizer_state, model, optimizer)
    set_state_dict(model, optimizer, model_state_dict=model_state, optim_state_dict=named, options=options)


def by_name(state: dict[str, Any], model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """An optimizer's state dict with its parameters by name, as ``torch.distributed.checkpoint`` takes it."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    names = [known[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    groups = [group | {"params": [names[number] for number in group["params"]]} for group in state["param_groups"]]
    return {**state, "state": {names[number]: own for number, own in state["state"].items()}, "param_groups": groups}
