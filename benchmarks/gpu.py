"""The step time on a GPU of every optimizer and kind of regularizer: ``python -m benchmarks.gpu --out gpu.json``.

First every combination is held against the eager engine in float64 on the CPU; nothing is timed if one differs.  Then,
set by set, optimizers take turns with torch's fused AdamW on the same tensors; ``--budget`` seconds in all (240).
``--dry`` runs everything on tiny tensors, on the CPU where Triton is told to interpret (``TRITON_INTERPRET=1``).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.steps import LR, OPTIMIZERS
from ramda_theory import kernels
from ramda_theory.files import write_json
from ramda_theory.regularizers import L1, GroupLasso, SparseGroupLasso
from ramda_theory.tables import aligned

KINDS = ("none", "L1", "group", "sparse group")
TRAFFIC = {"RAMDA": 8, "RMDA": 6, "ProxSGD": 5, "ProxAdamW": 7, "AdamW": 7}
"""Arrays that a step has to read or write, each once: what limits it."""
TOLERANCE = 1e-5
"""Of weights, relative to the largest, after the steps that are compared with float64."""
COLUMNS = ("tensors", "optimizer", "psi", "ms", "adamw_ms", "ratio", "low", "high", "gb_per_s", "zero", "at_most")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Set:
    """Tensors that are stepped together, and the ratio to AdamW that RAMDA with groups may have."""

    name: str
    shapes: tuple[Shape, ...]
    at_most: float


def resnet50() -> Iterator[Shape]:
    """Convolutions, normalizations and the last layer."""
    yield from ((64, 3, 7, 7), (64,), (64,))
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convolutions = [(width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            if block == 0:
                convolutions.append((4 * width, inputs, 1, 1))
            for shape in convolutions:
                yield from (shape, shape[:1], shape[:1])
            inputs = 4 * width
    yield from ((1000, 2048), (1000,))


def sets(dry: bool) -> list[Set]:
    """What is timed; ``dry``: the same kinds of tensors, few and tiny."""
    gpt2 = ((2304, 768), (2304,), (768, 768), (768,), (3072, 768), (3072,), (768, 3072), (768,), *[(768,)] * 4) * 12
    llama = (*[(4096, 4096)] * 4, (11008, 4096), (11008, 4096), (4096, 11008), (4096,), (4096,)) * 2
    found = [
        Set("GPT-2 small, 12 blocks", gpt2, 1.6),
        Set("MLP 6 x 1024^2", ((1024, 1024), (1024,)) * 6, 1.6),
        Set("ResNet-50", tuple(resnet50()), 1.6),
        Set("Llama-7B, 2 blocks", llama, 2.0),
        Set("MLP 64-256-256-10", ((256, 64), (256,), (256, 256), (256,), (10, 256), (10,)), 1.0),
        Set("20,000 tensors", ((16, 12), (16,)) * 10_000, 1.5),
    ]
    if not dry:
        return found
    return [
        Set(each.name, tuple(tuple(min(n, 9) for n in shape) for shape in each.shapes[:4]), each.at_most)
        for each in found
    ]


def regularizer(kind: str, weight: float, shape: Shape) -> Any:
    """psi of a weight: its groups are inputs; vectors have none."""
    if kind == "none" or len(shape) < 2:
        return None
    dims = (0, *range(2, len(shape)))
    return {
        "L1": lambda: L1(weight),
        "group": lambda: GroupLasso(weight, dims),
        "sparse group": lambda: SparseGroupLasso(weight, 0.5, dims),
    }[kind]()


def made(name: str, kind: str, weight: float, params: Sequence[Tensor], **options: Any) -> Any:
    """An optimizer with a parameter group per number of axes."""
    members: dict[int, list[Tensor]] = {}
    for parameter in params:
        members.setdefault(parameter.ndim, []).append(parameter)
    groups = [{"params": each, "regularizer": regularizer(kind, weight, each[0].shape)} for each in members.values()]
    return OPTIMIZERS[name](groups, lr=LR[name], **options)


def drawn(shapes: Sequence[Shape], device: str, seed: int) -> list[Tensor]:
    """Normal numbers times sizes that differ from input to input, whatever the device."""
    generator = torch.Generator(device).manual_seed(seed)
    found = []
    for shape in shapes:
        sizes = torch.randn(shape[1:2] or (1,), generator=generator, device=device).exp()
        sizes = sizes.reshape(1, -1, *[1] * (len(shape) - 2)) if len(shape) > 1 else sizes
        found.append(torch.randn(shape, generator=generator, device=device) * sizes)
    return found


def check_equality(device: str, dry: bool) -> int:
    """Compare every combination with float64 on the CPU; how many there were.

    Raises
    ------
    SystemExit
        If one differs by more than `TOLERANCE`.
    """
    shapes = ((9, 6), (5,), (4, 3, 3, 3)) if dry else ((300, 70), (64, 1030), (33,), (12, 7, 3, 3), (9000, 33))
    count = 0
    for name in OPTIMIZERS:
        for kind in KINDS:
            starts = drawn(shapes, "cpu", 0)
            pools = [drawn(shapes, "cpu", 1 + t) for t in range(2 if dry else 5)]
            ends = []
            for engine, dtype, where in (("triton", torch.float32, device), ("eager", torch.float64, "cpu")):
                params: list[Tensor] = [torch.nn.Parameter(w.to(where, dtype, copy=True)) for w in starts]
                optimizer = made(name, kind, 0.3, params)
                for pool in pools:
                    for parameter, gradient in zip(params, pool, strict=True):
                        parameter.grad = gradient.to(where, dtype)
                    with kernels.using(engine):
                        optimizer.step()
                ends.append([parameter.detach().double().cpu() for parameter in params])
            for one, other in zip(*ends, strict=True):
                worst = float((one - other).abs().max() / other.abs().max())
                if not worst <= TOLERANCE:
                    sys.exit(f"{name} with {kind} on {tuple(one.shape)} differs from float64 by {worst:.1e}: not timed")
            count += 1
    return count


def timed(step: Callable[[], Any], steps: int, device: str) -> float:
    """Milliseconds of a step."""
    if device == "cpu":
        clock = time.perf_counter()
        for _ in range(steps):
            step()
        return 1e3 * (time.perf_counter() - clock) / steps
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(steps):
        step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / steps


class Stepper:
    """An optimizer, and gradients that it gets in turn."""

    def __init__(
        self, make: Callable[[list[Tensor]], Any], starts: Sequence[Tensor], pools: list[list[Tensor]]
    ) -> None:
        self.params: list[Tensor] = [torch.nn.Parameter(w.clone()) for w in starts]
        self.optimizer, self._pools, self._turn = make(self.params), pools, 0

    def __call__(self) -> None:
        """A step."""
        self._turn = (self._turn + 1) % len(self._pools)
        for parameter, gradient in zip(self.params, self._pools[self._turn], strict=True):
            parameter.grad = gradient
        self.optimizer.step()


def rows(each: Set, device: str, dry: bool, seconds: float) -> Iterator[dict[str, Any]]:
    """The rows of a set of tensors, in about so many seconds."""
    starts = [0.02 * w for w in drawn(each.shapes, device, 0)]
    pools = [[1e-3 * g for g in drawn(each.shapes, device, 1 + k)] for k in range(2)]
    weights = sum(w.numel() for w in starts)
    baseline = Stepper(lambda params: torch.optim.AdamW(params, fused=True), starts, pools)
    todo: list[tuple[str, str]] = [("AdamW foreach", "none"), *((name, kind) for name in OPTIMIZERS for kind in KINDS)]
    turns, warm_up = (1, 1) if dry else (5, 8)
    for name, kind in todo:
        end = time.perf_counter() + seconds / len(todo)

        def make(params: list[Tensor], name: str = name, kind: str = kind) -> Any:
            if name == "AdamW foreach":
                return torch.optim.AdamW(params, foreach=True)
            return made(name, kind, 2e-4, params, on_nonfinite="ignore")

        stepper = Stepper(make, starts, pools)
        with kernels.using("triton"):
            timed(stepper, warm_up, device)
            timed(baseline, warm_up, device)
            last = max(timed(stepper, 1, device), 1e-3)
            steps = 1 if dry else max(1, min(50, int(300 * seconds / len(todo) / turns / last)))
            pairs = []
            for turn in range(turns):
                order = [stepper, baseline] if turn % 2 else [baseline, stepper]
                taken = {id(one): timed(one, steps, device) for one in order}
                pairs.append((taken[id(stepper)], taken[id(baseline)]))
                if pairs and time.perf_counter() > end:
                    break
        ratios = [own / theirs for own, theirs in pairs]
        ms = statistics.median(own for own, _ in pairs)
        first = next(parameter for parameter in stepper.params if parameter.ndim > 1)
        zero = None
        if kind != "none":
            with stepper.optimizer.structured_point():
                zero = float((first.detach() == 0).double().mean())
        yield {
            "tensors": each.name,
            "optimizer": name,
            "psi": kind,
            "ms": ms,
            "adamw_ms": statistics.median(theirs for _, theirs in pairs),
            "ratio": statistics.median(ratios),
            "low": min(ratios),
            "high": max(ratios),
            "gb_per_s": 4e-6 * TRAFFIC[name.split()[0]] * weights / ms,
            "zero": zero,
            "at_most": each.at_most if (name, kind) == ("RAMDA", "group") else None,
        }
        del stepper


def text(value: Any) -> str:
    """A value of the table."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, also where an aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    parser.add_argument("--only", default="", help="sets whose name contains this")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds in all")
    parser.add_argument("--dry", action="store_true", help="tiny tensors; on the CPU where there is no GPU")
    options = parser.parse_args(arguments)
    if options.out is not None and not options.out.parent.is_dir():
        parser.error(f"--out: no folder {options.out.parent}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.dry:
        parser.error("there is no GPU here; --dry with TRITON_INTERPRET=1 runs on the CPU")
    clock = time.perf_counter()
    equal = check_equality(device, options.dry)
    print(f"{equal} combinations equal float64 to {TOLERANCE:g}", flush=True)
    chosen = [each for each in sets(options.dry) if options.only in each.name]
    found: list[dict[str, Any]] = []
    for k, each in enumerate(chosen):
        left = max(options.budget - (time.perf_counter() - clock), 1.0)
        found += rows(each, device, options.dry, 0.8 * left / (len(chosen) - k))
        print(aligned([COLUMNS, *([text(row[c]) for c in COLUMNS] for row in found if row["tensors"] == each.name)]))
    machine = torch.cuda.get_device_name() if device == "cuda" else f"interpreted on {platform.machine()}"
    if options.out is not None:
        about = {"device": machine, "torch": torch.__version__, "dry": options.dry, "equal": equal}
        write_json(options.out, {**about, "rows": found})
    print(f"{machine}; {time.perf_counter() - clock:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
