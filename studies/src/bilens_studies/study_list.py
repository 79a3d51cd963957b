"""The list of studies: each is found by its file, and none is named anywhere else.

Every module of the package is imported, and each `Study` in it that has a name is one.
"""

import pkgutil
from difflib import get_close_matches
from functools import cache
from importlib import import_module

import bilens_studies
from bilens.base.errors import UsageError
from bilens_studies.study import Study

GROUPS = ("toy", "vision", "language", "conversion", "conversion-circuits", "findings")


@cache
def all_studies() -> dict[str, Study]:
    """Import every module of the package and list its studies by name, in the order of the page."""
    found: dict[str, Study] = {}
    for module in pkgutil.iter_modules(bilens_studies.__path__, "bilens_studies."):
        for kind in vars(import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, Study) and "name" in vars(kind):
                found[kind.name] = found.get(kind.name) or kind()
    return dict(sorted(found.items(), key=lambda item: place_on_page(item[0])))


def place_on_page(name: str) -> tuple[int, str]:
    group = name.partition("/")[0]
    return GROUPS.index(group) if group in GROUPS else len(GROUPS), name


def find_studies(name: str) -> list[Study]:
    """Find the study of a name, or all of a group such as "toy"."""
    found = [study for key, study in all_studies().items() if name in (key, key.partition("/")[0])]
    if not found:
        known = dict.fromkeys([*all_studies(), *(key.partition("/")[0] for key in all_studies())])
        ends = {key.rpartition("/")[2]: key for key in all_studies()}
        near = get_close_matches(name, [*known, *ends], n=3, cutoff=0.5)
        which = dict.fromkeys(ends.get(key, key) for key in near) or known
        raise UsageError(
            f"there is no study {name!r}: choose one of {', '.join(which)}; `bilens reproduce "
            "list` says what each measures."
        )
    return found
