"""Files of published datasets from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from twinlens.attribution.errors import UserError


def fetch(repository: str, name: str, dataset: str, wanted: str) -> Path:
    """Fetch one file of a dataset repository, or find it in the hub's cache.

    Args:
        repository: owner/name on the hub.
        name: the file's path in it.
        dataset: what people call the dataset, for the message.
        wanted: the files a user would need instead, for the message.

    Raises:
        UserError: no connection, or the hub refuses.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset"))
    except Exception as error:  # whichever HTTP client the hub's library uses, with errors of its own
        raise UserError(
            f"{Path(name).name} of {dataset} could not be downloaded from {repository} ({type(error).__name__}), "
            f"expected a connection to the Hugging Face hub: get {wanted} elsewhere and give data.path=DIR."
        ) from None
