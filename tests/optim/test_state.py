"""Loading a state_dict is all or nothing: one bad value leaves the optimizer as it was, and is named."""

import copy
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from toy import CLASSES

from ramda_theory.optim import RAMDA, ProxAdamW
from ramda_theory.regularizers import L1

NAN, INF = float("nan"), float("inf")
SUMS = {"RAMDA": "grad_sq_sum", "ProxAdamW": "exp_avg_sq"}


def stepped(cls, seed, dtype=torch.float32, named=True, **options):
    """An optimizer of three parameters in two groups after some steps, and its parameters."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"first": (3, 2), "second": (4,), "third": (2, 3)}
    params = {name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for name, shape in shapes.items()}
    items = list(params.items()) if named else list(params.values())
    optimizer = cls([{"params": items[:2]}, {"params": items[2:], "lr": 0.02}], lr=0.01, **options)
    for _ in range(2 + seed):
        for parameter in params.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(dtype)
        optimizer.step()
    return optimizer, list(params.values())


def held(optimizer):
    """All that loading could change: the very tensors, and copies of their values."""
    objects = [(id(p), key, id(v)) for p, state in optimizer.state.items() for key, v in state.items()]
    return objects, repr(optimizer), copy.deepcopy(optimizer.state_dict())


def assert_untouched(optimizer, before):
    objects, text, saved = before
    now = held(optimizer)
    assert now[0] == objects and now[1] == text
    assert now[2]["param_groups"] == saved["param_groups"]
    torch.testing.assert_close(now[2]["state"], saved["state"], rtol=0, atol=0)


def bad_values(key, value):
    """What a state must not hold under ``key``, and what the message says of it."""
    if value.numel() == 1 and key in ("step", "weight_sum"):
        bad = [
            ("x", "real number"),
            (None, "real number"),
            (torch.ones(2), "must be one number"),
            (True, "real number"),
        ]
        bad += [(torch.tensor(number), "finite and >= 0") for number in (NAN, INF, -1.0)] + [(-1, "finite and >= 0")]
        bad += [(torch.tensor(1j), "real number"), ([1.0, 2.0], "real number"), ({}, "real number")]
        return bad + ([(1.5, "whole number"), (torch.tensor(2.25), "whole number")] if key == "step" else [])
    bad = [("x", "must be a tensor"), (None, "must be a tensor"), (1.0, "must be a tensor")]
    bad += [(value.numpy().copy(), "must be a tensor"), (value.long(), "floating-point")]
    bad += [(value.to_sparse(), "dense"), (value[..., :1].clone(), "has shape"), (value.flatten()[:1], "has shape")]
    for number in (NAN, INF, -INF) + ((-1e-3,) if key in SUMS.values() else ()):
        spoilt = value.clone()
        spoilt.view(-1)[-1] = number
        bad.append((spoilt, "nowhere negative" if number == -1e-3 else "must be finite"))
    return bad


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("cls", CLASSES)
def test_one_bad_value_changes_nothing_and_is_named(cls, named):
    optimizer, _ = stepped(cls, 0, named=named, regularizer=L1(0.1))
    before = held(optimizer)
    good = stepped(cls, 1, named=named)[0].state_dict()
    tried = 0
    for index, where in ((1, "parameter 1 of group 0"), (2, "parameter 0 of group 1")):
        where = f"parameter '{('first', 'second', 'third')[index]}'" if named else where
        for key, value in good["state"][index].items():
            if key == "norms":
                continue
            for bad, says in bad_values(key, value):
                spoilt = copy.deepcopy(good)
                spoilt["state"][index][key] = bad
                with pytest.raises((TypeError, ValueError), match=says) as caught:
                    optimizer.load_state_dict(spoilt)
                assert f"'{key}' in the state of {where}" in str(caught.value)
                assert_untouched(optimizer, before)
                tried += 1
    assert tried >= 40
    optimizer.load_state_dict(good)
    torch.testing.assert_close(optimizer.state_dict()["state"], good["state"], rtol=0, atol=0)


@pytest.mark.parametrize("cls", CLASSES)
def test_keys_too_few_or_too_many_are_named(cls):
    optimizer, _ = stepped(cls, 0)
    before, good = held(optimizer), stepped(cls, 1)[0].state_dict()
    for key in optimizer._state_keys:
        spoilt = copy.deepcopy(good)
        del spoilt["state"][2][key]
        with pytest.raises(ValueError, match=f"state of parameter 'third' is not of {cls.__name__}: it lacks {key}$"):
            optimizer.load_state_dict(spoilt)
    spoilt = copy.deepcopy(good)
    spoilt["state"][1]["max_exp_avg_sq"] = torch.ones(4)
    with pytest.raises(ValueError, match=f"'second' is not of {cls.__name__}, whose states have no max_exp_avg_sq"):
        optimizer.load_state_dict(spoilt)
    assert_untouched(optimizer, before)


def replaced(saved, *path, by):
    changed = copy.deepcopy(saved)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = by
    return changed


@pytest.mark.parametrize(
    ("path", "by", "message"),
    [
        (("state",), None, "'state' of state_dict must be a dict, got None"),
        (("state",), [1], "'state' of state_dict must be a dict"),
        (("state", 1), "x", "state of parameter 'second' must be a dict, got 'x'"),
        (("state", 9), {}, "a state of parameter 9, which is in no group"),
        (("param_groups",), None, "'param_groups' of state_dict must be a list"),
        (("param_groups", 1), 3, r"param_groups\[1\] of state_dict must be a dict"),
        (("param_groups", 1, "params"), 3, r"'params' in param_groups\[1\] of state_dict must be a list"),
        (("param_groups", 1, "params"), [2, 3], "doesn't match the size"),
        (("param_groups",), [], "different number of parameter groups"),
        (("param_groups", 0, "skipped_steps"), "x", "'skipped_steps' in .* must be a real number"),
        (("param_groups", 1, "max_iter"), 0, "max_iter must be at least 1"),
        (("param_groups", 1, "tolerance"), {"name": "Other"}, "tolerance must be one of"),
    ],
    ids=str,
)
def test_what_is_no_state_dict_is_refused(path, by, message):
    optimizer, _ = stepped(RAMDA, 0)
    before = held(optimizer)
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.load_state_dict(replaced(stepped(RAMDA, 1)[0].state_dict(), *path, by=by))
    assert_untouched(optimizer, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_beyond_the_precision_of_the_state_are_refused(dtype):
    """Finite in float64, Inf in the float32 of the state; the float32 copies of the weights are looked at too."""
    optimizer, _ = stepped(RAMDA, 0, dtype)
    before, good = held(optimizer), stepped(RAMDA, 1, dtype)[0].state_dict()
    wide = replaced(good, "state", 2, "grad_sum", by=torch.full((2, 3), 1e39, dtype=torch.float64))
    copies = replaced(good, "state", 2, "w", by=torch.full((2, 3), NAN))
    for spoilt, key in ((wide, "grad_sum"), (copies, "w")):
        with pytest.raises(ValueError, match=f"'{key}' in the state of parameter 'third' must be finite"):
            optimizer.load_state_dict(spoilt)
        assert_untouched(optimizer, before)
    optimizer.load_state_dict(good)


def test_an_error_in_a_hook_leaves_everything_as_it_was():
    optimizer, _ = stepped(RAMDA, 0)
    before = held(optimizer)

    def failing(_):
        raise RuntimeError("no")

    optimizer.register_load_state_dict_post_hook(failing)
    with pytest.raises(RuntimeError, match="no"):
        optimizer.load_state_dict(stepped(RAMDA, 1)[0].state_dict())
    assert_untouched(optimizer, before)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("as_step", [int, float, np.float64, torch.tensor, lambda t: torch.tensor([float(t)])])
def test_steps_of_any_kind_load_if_they_are_whole(cls, as_step):
    """As older versions, torch and JSON keep them: the run goes on as with its own."""
    ends = []
    for convert in (lambda t: t, lambda t: as_step(int(t))):
        optimizer, params = stepped(cls, 1)
        saved = copy.deepcopy(optimizer.state_dict())
        for state in saved["state"].values():
            if "step" in state:
                state["step"] = convert(state["step"])
        optimizer.load_state_dict(saved)
        for parameter in params:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        ends.append([parameter.detach().clone() for parameter in params])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adamw_s_state_goes_on_in_proxadamw(dtype, amsgrad):
    """Without a regularizer the two are one algorithm; AMSGrad is another."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 4, generator=generator).to(dtype)
    gradients = [torch.randn(3, 4, generator=generator).to(dtype) for _ in range(8)]
    one, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    adamw = torch.optim.AdamW([one], lr=0.01, weight_decay=0.1, amsgrad=amsgrad)
    for gradient in gradients[:4]:
        one.grad = gradient
        adamw.step()
    other.data.copy_(one.data)
    prox = ProxAdamW([other], lr=0.5)
    if amsgrad:
        with pytest.raises(ValueError, match="whose states have no max_exp_avg_sq"):
            prox.load_state_dict(copy.deepcopy(adamw.state_dict()))
        return
    prox.load_state_dict(copy.deepcopy(adamw.state_dict()))
    for gradient in gradients[4:]:
        one.grad = other.grad = gradient
        adamw.step()
        prox.step()
    torch.testing.assert_close(other, one, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=1e-7)


@given(
    cls=st.sampled_from(CLASSES),
    index=st.integers(0, 2),
    place=st.integers(0, 10**6),
    bits=st.integers(0, 2**32 - 1),
)
def test_any_entry_of_any_array_is_looked_at(cls, index, place, bits):
    """Any float32 in any entry: loaded exactly if it is a number that belongs there, else refused without a trace."""
    optimizer, _ = stepped(cls, 0)
    before, saved = held(optimizer), copy.deepcopy(stepped(cls, 1)[0].state_dict())
    keys = [key for key in optimizer._state_keys if saved["state"][index][key].ndim]
    key = [key for key in keys if key != "weight_sum"][place % len([key for key in keys if key != "weight_sum"])]
    array = saved["state"][index][key]
    value = float(np.uint32(bits).view(np.float32))
    array.view(-1)[place % array.numel()] = value
    if np.isfinite(value) and (value >= 0 or key not in SUMS.values()):
        optimizer.load_state_dict(saved)
        torch.testing.assert_close(optimizer.state_dict()["state"], saved["state"], rtol=0, atol=0)
    else:
        with pytest.raises(ValueError, match=re.escape(f"'{key}' in the state of parameter")):
            optimizer.load_state_dict(saved)
        assert_untouched(optimizer, before)
