"""The one import name of the project: `twinlens.data`, `twinlens.models`, `twinlens.train` and so on.

In a checkout these lie beside this folder, as the layout of the project wants them. The search path of the package
therefore holds the checkout too. A wheel has the same folders inside the package and needs no second place.
"""

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]

if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "conf" / "train.yaml").is_file():
    __path__.append(str(_CHECKOUT))
