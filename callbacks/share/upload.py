"""Push of a run to a hub: `push=hub:NAME` at its end, `push=hub:NAME push_of=RUN` for one that is finished."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

from twinlens.attribution.errors import UserError
from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.callbacks.report.rebuild import run_folder
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.share.cards import cards_of
from twinlens.callbacks.share.model_card import keeps_weights
from twinlens.conf.checking.push_names import HUB, repository_of
from twinlens.conf.checking.secrets import scrub

BESIDE = ("report.html", "results.csv")
"""Files of the run that go with the cards: the explorer, and every number."""


def ready_to_push(push: str) -> tuple[HfApi, str]:
    """The hub and the full name of the repository, once the hub has said who is logged in; nothing is written.

    Args:
        push: `hub:NAME` or `hub:OWNER/NAME`; without an owner it is whoever is logged in.

    Raises:
        UserError: nobody is logged in, the hub does not know the token or cannot be reached, the token may only read,
            or the owner is somebody else.
    """
    owner, _, name = repository_of(push).rpartition("/")
    later = f"leave push out, and push later with push={push} push_of=RUN"
    if get_token() is None:
        raise UserError(
            f"push={push}: nobody is logged in to the hub; expected a token that may write: run `hf auth login` or set "
            f"HF_TOKEN, or {later}."
        )
    api = HfApi()
    try:
        account: Mapping[str, Any] = api.whoami()
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        raise UserError(
            f"push={push}: the hub at {api.endpoint} does not take the token ({status}); expected one that may write: "
            f"run `hf auth login`, or {later}."
        ) from None
    except Exception:  # whichever HTTP client the hub's library uses, with errors of its own
        raise UserError(
            f"push={push}: the hub at {api.endpoint} cannot be reached; expected a connection before the run starts, "
            f"and HF_HUB_OFFLINE not set: {later} from a machine that has one."
        ) from None
    if ((account.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise UserError(
            f"push={push}: the token of {account['name']} may only read; expected one that may write: make one on the "
            f"hub's page of tokens and run `hf auth login`, or {later}."
        )
    owners = [account["name"], *(organisation["name"] for organisation in account.get("orgs") or ())]
    if owner and owner not in owners:
        raise UserError(
            f"push={push}: {account['name']} is logged in, who does not write to {owner}; expected one of "
            f"{', '.join(owners[:20])}: write push=hub:{account['name']}/{name}, or log in as {owner}."
        )
    return api, f"{owner or account['name']}/{name}"


def files_to_push(run_dir: Path) -> dict[str, Path]:
    """Path in the repository → file of the run, cards first; weights where the run has trained them itself.

    Cards that are there go as they are: somebody may have written into them.

    Raises:
        UserError: a file that goes along is missing.
    """
    files = {path.name: path for path in cards_of(run_dir)}
    files |= {name: run_dir / name for name in BESIDE}
    if keeps_weights(RunFiles(run_dir)):
        model = run_dir / "model"
        found = sorted(path for path in model.rglob("*") if path.is_file())
        files |= {name: path for path in found if (name := path.relative_to(model).as_posix()) not in files}
    for name, path in files.items():
        if not path.is_file():
            raise UserError(
                f"{path} is missing; expected it among the run's files, since {name} is pushed: make it again with "
                f"report.of={run_dir}."
            )
    return files


def push_run(run_dir: Path, push: str) -> str:
    """Push a run's cards, explorer, results and the weights that it trained; what goes is listed first.

    The repository is made private where it is new; of one that is there already nothing but these files changes.
    Files that the hub has already are not sent again, so that a push that broke off goes on.

    Args:
        run_dir: the run's folder.
        push: see `ready_to_push`.

    Returns:
        Address of the repository.

    Raises:
        UserError: see `ready_to_push` and `files_to_push`; or the hub did not take the files: the run is kept.
    """
    files = files_to_push(run_dir)
    api, name = ready_to_push(push)
    print(f"push: to {name} at {api.endpoint}, private where it is new:", flush=True)
    for path, file in files.items():
        print(f"  {path}  {bytes_in_words(file.stat().st_size)}", flush=True)
    additions = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=file) for path, file in files.items()]
    try:
        api.create_repo(name, private=True, exist_ok=True)
        api.create_commit(name, additions, commit_message=f"Run {run_dir.name}")
    except Exception as error:  # whichever HTTP client the hub's library uses, with errors of its own
        reason = scrub(str(error).strip().splitlines()[0] if str(error).strip() else "")
        raise UserError(
            f"the push to {name} ended with {type(error).__name__} ({reason:.200}); expected a hub that takes the "
            f"files: the run is kept, push it again with push={HUB}{name} push_of={run_dir}."
        ) from None
    address = f"{api.endpoint}/{name}"
    print(f"push: {address}", flush=True)
    return address


def push_command(config: Any) -> dict[str, float]:
    """Push a finished run if the configuration says so, which is then all that happens.

    Returns:
        How many were pushed; empty where the configuration asks for a run.

    Raises:
        UserError: see `push_run`.
    """
    run = config.get("push_of")
    if run is None:
        return {}
    push_run(run_folder(run), config.push)
    return {"push/made": 1.0}
