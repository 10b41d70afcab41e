"""Push of a run: refusals before it, what arrives, again and after an interruption, against a hub on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.callbacks.fake_run import FakeRun
from tests.running import SMALL_DEMO, CommandLine
from tests.writable_hub import TOKEN, taking
from twinlens.attribution.errors import UserError
from twinlens.callbacks.share.cards import write_cards
from twinlens.callbacks.share.upload import push_command, push_run, ready_to_push
from twinlens.conf.checking.push_names import check_push, repository_of

pytestmark = pytest.mark.usefixtures("quiet_datasets")
WEIGHTS = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with weights of its own, its report and its cards written."""
    small = FakeRun(n_train=12, n_test=4, list_length=4, summary=False, instance=("gradsim",), neuron=("ig",))
    folder = small.write(tmp_path_factory.mktemp("pushed") / "run")
    (folder / "report.html").write_text("<p>report</p>", encoding="utf-8")
    (folder / "model" / "model.safetensors").write_bytes(WEIGHTS)
    write_cards(folder)
    return folder


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Path:
    """The same in a folder that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "run"))


def test_what_is_pushed_arrives_as_it_is_and_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with taking(monkeypatch, tmp_path) as hub:
        address = push_run(run, "hub:claims")
        assert address == f"{hub.endpoint}/me/claims"
        repository = hub.written["me/claims"]
        assert repository.private
        cards = {name: run / "cards" / name for name in ("README.md", "data_card.md", "citations.bib")}
        beside = {name: run / name for name in ("report.html", "results.csv")}
        model = {name: run / "model" / name for name in ("config.json", "model.safetensors")}
        files = cards | beside | model
        assert repository.files == {name: path.read_bytes() for name, path in files.items()}
        said = capsys.readouterr().out
        assert said.index("model.safetensors  10.0 KiB") < said.index(f"push: {address}")
        assert TOKEN not in said
        push_run(run, "hub:me/claims")  # nothing has changed
        assert len(repository.commits) == 1
        assert hub.asked.count("PUT blob") == 1
        (run / "cards" / "README.md").write_text((run / "cards" / "README.md").read_text() + "\nA word of mine.\n")
        push_run(run, "hub:me/claims")
        assert repository.commits[1:] == [["README.md"]]
        assert repository.files["README.md"].endswith(b"A word of mine.\n")
    for file in (path for path in run.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in file.read_bytes()


@pytest.mark.parametrize("part", ["commit", pytest.param("blob", marks=pytest.mark.long)])
def test_a_push_that_breaks_off_keeps_the_run_and_goes_on(
    part: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with taking(monkeypatch, tmp_path) as hub:
        hub.breaks_at = part
        with pytest.raises(UserError, match=f"the run is kept, push it again with push=hub:me/claims push_of={run}"):
            push_run(run, "hub:claims")
        assert hub.written["me/claims"].files == {}
        push_run(run, "hub:claims")
        assert hub.written["me/claims"].files["model.safetensors"] == WEIGHTS
        assert hub.asked.count("PUT blob") == (1 if part == "commit" else 2)  # what has arrived is not sent again


@pytest.mark.long
def test_weights_of_others_stay_where_they_are(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "fit: false\n")
    shutil.rmtree(run / "cards")  # made where one is missing
    with taking(monkeypatch, tmp_path) as hub:
        push_run(run, "hub:lab/claims")
        assert set(hub.written["lab/claims"].files) == {
            "README.md", "data_card.md", "citations.bib", "report.html", "results.csv",
        }  # fmt: skip
        assert b"its weights are not part" in hub.written["lab/claims"].files["README.md"]


def test_who_may_not_write_is_told_so_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with taking(monkeypatch, tmp_path) as hub:
        assert ready_to_push("hub:lab/claims")[1] == "lab/claims"
        with pytest.raises(UserError, match="me is logged in, who does not write to you"):
            ready_to_push("hub:you/claims")
        hub.role = "read"
        with pytest.raises(UserError, match="may only read"):
            ready_to_push("hub:claims")
        assert hub.written == {}
        monkeypatch.setenv("HF_TOKEN", "hf_" + "b" * 34)
        with pytest.raises(UserError, match=r"does not take the token \(401\)"):
            ready_to_push("hub:claims")
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(UserError, match="nobody is logged in"):
            ready_to_push("hub:claims")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError, match="cannot be reached"):  # the hub has gone
        ready_to_push("hub:claims")


@pytest.mark.long
def test_a_run_is_refused_before_anything_is_written(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with taking(monkeypatch, command.folder / "home", token=None):
        refused = command("push=hub:claims")
    assert (refused.code, "nobody is logged in" in refused.err) == (2, True)
    assert not list(command.folder.glob("outputs/runs/*"))


@pytest.mark.parametrize(
    "name", ["me/claims", "claims", "a", "a.b_c-d", "x" * 96, "me/x.y", "me/--x", "a..b", "-a", "a-", "a/b/c", "x" * 97]
)
def test_names_are_those_that_the_hub_takes(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        with pytest.raises(UserError, match="is no name of a repository"):
            repository_of(f"hub:{name}")
    else:
        assert repository_of(f"hub:{name}") == name


@pytest.mark.parametrize(
    ("config", "typed", "multirun", "said"),
    [
        ({"push": "claims"}, ("push",), False, "expected hub:NAME"),
        ({"push": "hub:me/my claims"}, ("push",), False, "is no name of a repository"),
        ({"push": "hub:claims"}, (), False, "a configuration file asks for this"),
        ({"push": "hub:claims"}, ("push",), True, "the jobs of a sweep would write over each other"),
        ({"push_of": "run"}, ("push_of",), False, "add push=hub:NAME"),
    ],
)
def test_what_cannot_be_pushed_is_said_at_once(config: dict, typed: tuple, multirun: bool, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_push(config, typed, multirun)


def test_what_is_no_run_is_not_pushed() -> None:
    with pytest.raises(UserError, match="nowhere is no run's folder"):
        push_command(DictConfig({"push": "hub:a", "push_of": "nowhere"}))


@pytest.mark.long
def test_a_run_pushes_itself_and_a_finished_one_is_pushed(
    command: CommandLine, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with taking(monkeypatch, command.folder / "home") as hub:
        done = command("push=hub:claims", "method=gradsim", "evaluation=accuracy", base=SMALL_DEMO)
        assert done.code == 0, done.err
        model = done.folder / "model" / "model.safetensors"
        assert hub.written["me/claims"].files["model.safetensors"] == (command.folder / model).read_bytes()
        assert "push: null" in (command.folder / done.folder / "config.yaml").read_text()
        shutil.copytree(trained, command.folder / "finished")
        again = command("push=hub:lab/claims", "push_of=finished", base=())
        assert again.code == 0, again.err
        assert again.out.splitlines()[-1] == f"push: {hub.endpoint}/lab/claims"
        assert b"library_name: transformers" in hub.written["lab/claims"].files["README.md"]
