"""The factorisations, one file each. `FORMS` holds them by name; `register_form` adds one from outside."""

import importlib
import pkgutil

from tncompress.forms.form import Form
from tncompress.naming import did_you_mean

FORMS: dict[str, Form] = {}


def register_form(form: Form) -> Form:
    """Make a form known by its name, e.g. to `replace_dense(form=...)`.

    Raises:
        ValueError: if another form has that name.
    """
    if FORMS.get(form.name, form) != form:
        raise ValueError(f"There is a form {form.name!r} already; choose another name than {sorted(FORMS)}.")
    FORMS[form.name] = form
    return form


def get_form(name: str) -> Form:
    """The form of that name.

    Raises:
        ValueError: if there is none; names those that there are, and which is near.
    """
    if name not in FORMS:
        near = did_you_mean(name, FORMS)
        raise ValueError(f"There is no form {name!r}; choose from {', '.join(sorted(FORMS))}.{near}")
    return FORMS[name]


for _module in pkgutil.iter_modules(__path__):
    if hasattr(_found := importlib.import_module(f"{__name__}.{_module.name}"), "FORM"):
        register_form(_found.FORM)
