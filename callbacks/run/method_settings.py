"""Settings of methods that are not those shipped, as the column `setting` of results.csv gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinlens.attribution.method import Method
from twinlens.conf.checking.shipped import non_default, shown


def method_settings(methods: Mapping[str, Method], nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name of a method → `key=value;…` of all that differs from conf/method/<name>.yaml, or from its class's defaults.

    What a bridge reads is part of it: settings of a source follow as `source.key=value`. Empty for a method as shipped.

    Args:
        methods: of the run, built.
        nodes: their configuration, plain values.
    """
    own = {
        name: {
            key: shown(value) for key, value in non_default(name, "method", nodes.get(name, {}), type(method)).items()
        }
        for name, method in methods.items()
    }

    def of(name: str, path: tuple[str, ...] = ()) -> dict[str, str]:
        found = dict(own.get(name, {}))
        for source in methods[name].sources if name in methods and name not in path else ():
            found |= {_below(source.name, key): value for key, value in of(source.name, (*path, name)).items()}
        return found

    return {name: ";".join(f"{key}={value}" for key, value in of(name).items()) for name in methods}


def setting_of(settings: Mapping[str, str], method: str, reference: str) -> str:
    """What a row's number rests on: settings of its method, and of the method that it is compared with or drawn for.

    Args:
        settings: see `method_settings`.
        method, reference: cells `method` and `reference_group` of the row; a name that is no method has no settings.
    """
    parts = [settings.get(method, "")]
    if reference != method and settings.get(reference):
        parts += [_below(reference, part) for part in settings[reference].split(";")]
    return ";".join(filter(None, parts))


def _below(name: str, key: str) -> str:
    return f"{name}.{key}"
