"""The settings of the project under test, changed by the terms of the run."""

from importlib import import_module

from .terms import Terms

_terms = Terms.current()
_own = vars(import_module(_terms.settings))
globals().update({name: value for name, value in _own.items() if name.isupper()})

MESSAGING = _terms.messaging(_own.get("MESSAGING", {}))
INSTALLED_APPS = [*_own["INSTALLED_APPS"], "messaging.lab.apps.LabConfig"]
