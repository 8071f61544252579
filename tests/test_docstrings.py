"""Docstrings of the public names: numpydoc's own validation of their sections.

Public are the names in the ``__all__`` of each wing, and their public methods, those of private bases included.
"""

import importlib
import inspect
import pkgutil

import pytest
from numpydoc.validate import validate

import ramda_theory

CODES = {
    "GL08": "has a docstring",
    "PR01": "every parameter is documented",
    "PR02": "no other is",
    "PR03": "in their order",
    "PR10": "a space before the colon of a type",
    "RT01": "what is returned",
    "YD01": "what is yielded",
}

WINGS = ["ramda_theory"] + [f"ramda_theory.{module.name}" for module in pkgutil.iter_modules(ramda_theory.__path__)]


def public(wing: str) -> dict[str, object]:
    """Dotted name -> function, class or method, of a wing that lists its names."""
    module = importlib.import_module(wing)
    found: dict[str, object] = {}
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if not inspect.isclass(thing) and not inspect.isfunction(thing):
            continue
        found[f"{wing}.{name}"] = thing
        for base in reversed(thing.__mro__) if inspect.isclass(thing) else ():
            if not base.__module__.startswith("ramda_theory"):
                continue
            for attribute, method in vars(base).items():
                method = getattr(method, "__func__", method)
                # A method that says nothing itself does what the class that it comes from says.
                said = inspect.isfunction(method) and (method.__doc__ or not inspect.getdoc(getattr(base, attribute)))
                if said and not attribute.startswith("_"):
                    found[f"{base.__module__}.{base.__qualname__}.{attribute}"] = method
    return found


def faults(name: str, thing: object) -> list[str]:
    """What numpydoc finds; the fields of a result may be listed as Attributes instead of Parameters."""
    errors = [(code, text) for code, text in validate(name)["errors"] if code in CODES]
    if inspect.isclass(thing) and "Attributes\n" in (thing.__doc__ or ""):
        errors = [(code, text) for code, text in errors if code != "PR01"]
    if errors and overrides_documented(name):
        errors = [(code, text) for code, text in errors if code not in ("PR01", "RT01")]
    return [f"{name}: {code} {text}" for code, text in errors]


def overrides_documented(name: str) -> bool:
    """Whether a method fills a contract that a base class documents in full, with the same parameters.

    Such a method need only say what is particular to it: its formula.
    """
    path, _, attribute = name.rpartition(".")
    module, _, owner = path.rpartition(".")
    owner = getattr(importlib.import_module(module), owner, None) if module else None
    for base in owner.__mro__[1:] if inspect.isclass(owner) else ():
        if getattr(vars(base).get(attribute), "__doc__", None):
            contract = getattr(base, attribute)
            asked, taken = ([*inspect.signature(each).parameters] for each in (contract, getattr(owner, attribute)))
            return asked == taken and not faults(f"{base.__module__}.{base.__qualname__}.{attribute}", contract)
    return False


@pytest.mark.parametrize("wing", WINGS)
def test_sections_are_complete(wing):
    found = [fault for name, thing in public(wing).items() for fault in faults(name, thing)]
    assert not found, "\n".join(found)


def undocumented(x):
    """Says nothing of x, or of what it returns."""
    return x


def test_what_is_missing_is_found(monkeypatch):
    monkeypatch.setattr(ramda_theory, "undocumented", undocumented, raising=False)
    assert [fault.split()[1] for fault in faults("ramda_theory.undocumented", undocumented)] == ["PR01", "RT01"]


class Contract:
    """Two methods, of which the first is documented."""

    def told(self, x):
        """Says all.

        Parameters
        ----------
        x : float
            A number.

        Returns
        -------
        float
        """
        return x

    def untold(self, x):
        """Says nothing of x."""
        return x


class Filled(Contract):
    """Overrides both."""

    def told(self, x):
        """2 x."""
        return 2 * x

    def untold(self, x):
        """2 x."""
        return 2 * x


class Changed(Contract):
    """Overrides the first with another parameter."""

    def told(self, x, factor=1.0):
        """factor x."""
        return factor * x


def test_an_override_may_leave_the_sections_to_its_contract():
    here = f"{__name__}.%s"
    assert faults(here % "Filled.told", Filled.told) == []
    assert [fault.split()[1] for fault in faults(here % "Filled.untold", Filled.untold)] == ["PR01", "RT01"]
    assert [fault.split()[1] for fault in faults(here % "Changed.told", Changed.told)] == ["PR01", "RT01"]


def test_public_names_are_found():
    names = set(public("ramda_theory.methods"))
    defined = "ramda_theory.methods.dual_averaging"
    assert {"ramda_theory.methods.MDA", f"{defined}.RAMDA.step", f"{defined}.DualAveraging.restart"} <= names
    assert f"{defined}.DualAveraging._solve" not in names
