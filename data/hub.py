"""Files of published datasets from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twinlens.attribution.errors import UserError


def fetch(repository: str, name: str, dataset: str, wanted: str, kinds: Sequence[str] = ("dataset", "model")) -> Path:
    """Fetch one file of a repository, or find it in the hub's cache.

    Data lie in dataset repositories, some in model repositories, and they can be moved from one to the other.

    Args:
        repository: owner/name on the hub.
        name: the file's path in it.
        dataset: what people call the dataset, for the message.
        wanted: the files a user would need instead, for the message.
        kinds: of repositories of that name, in the order in which they are asked.

    Raises:
        UserError: no connection, or the hub refuses both.
    """
    from huggingface_hub import hf_hub_download

    failures = []
    for kind in kinds:
        try:
            return Path(hf_hub_download(repository, name, repo_type=kind))
        except Exception as error:  # whichever HTTP client the hub's library uses, with errors of its own
            failures.append(f"as a {kind} repository: {type(error).__name__}")
    raise UserError(
        f"{Path(name).name} of {dataset} could not be downloaded from {repository} ({'; '.join(failures)}), "
        f"expected a connection to the Hugging Face hub: get {wanted} elsewhere and give data.path=DIR."
    )
