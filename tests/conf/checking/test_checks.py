"""Every wrong command line gets one sentence: what, where, what was expected, what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from tests.conf.checking.composing import TREE, compose, parse, write_tree
from twinlens.attribution.errors import UserError
from twinlens.conf.checking.checks import check_command_line
from twinlens.conf.checking.command_line import CommandLine

ALLOW = "allow_targets=[tests.conf.checking.shapes]"


@pytest.fixture(autouse=True)
def plain_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's own reader of files: a command that ran before in this process checks all but the project's own."""
    Plugins.instance()
    types = SourcesRegistry.instance().types
    monkeypatch.setitem(types, "file", FileConfigSource)
    monkeypatch.setitem(types, "pkg", ImportlibResourcesConfigSource)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("conf"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: a dumped configuration, and folders named like groups."""
    folder = tmp_path_factory.mktemp("it's a run")
    (folder / "model").mkdir()
    text = "defaults:\n  - hydra: default\n  - _self_\nseed: 3\nmodel: {name: tiny, path: null}\ndata: {name: demo}\n"
    text += "method: {ig: {_target_: tests.conf.checking.shapes.Method, n_steps: 2}}\n"
    return write_tree(folder, {"config.yaml": text + "allow_targets: []\n"})


def check(tree: Path, *arguments: str, allow: bool = True) -> CommandLine:
    return check_command_line([*([ALLOW] if allow else []), *arguments], tree, compose, parse)


def replay(tree: Path, run: Path, *overrides: str) -> CommandLine:
    options = ["--config-dir", str(run), "--config-name", "config"]
    return check_command_line([*options, ALLOW, *overrides], tree, compose, parse)


def refusal(tree: Path, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        # Hydra's options come first: its parser reads overrides in one block only.
        check_command_line([*arguments, ALLOW], tree, compose, parse)
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["model=pythia410m", "seed=3", "fit=false"],
        ["method=[ig,gradsim]", "method.gradsim.size=4", "method.ig.layers=[3]"],
        ["method=gradsim"],
        ["method.ig.layers.0=5"],
        ["experiment=good", "method.gradsim.size=4"],
        ["debug=fdr"],
        ["data=table", "data.path=some/file.csv"],
        ["data=table", "data.path='a b, [c]'"],
        ["memory_budget=2GiB", "tags=[a,b]", "+method.ig.preset=left"],
        ["~method.ig.layers"],
        ["hydra.run.dir=elsewhere", "+hydra.job.env_set.A=b"],
    ],
)
def test_valid_command_lines_pass(tree: Path, arguments: list[str]) -> None:
    assert check(tree, *arguments).overrides == [ALLOW, *arguments]


@pytest.mark.parametrize(
    "arguments",
    [
        ["method=ig,gradsim", "seed=0,1"],
        ["method=[ig,gradsim],gradsim"],
        ["seed=range(0,3)"],
        ["seed=choice(1,2)"],
        ["model=glob(*)"],
        ["model=tiny"],
    ],
)
def test_valid_sweeps_pass(tree: Path, arguments: list[str]) -> None:
    command = check_command_line(["-m", ALLOW, *arguments], tree, compose, parse)
    assert command.multirun


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("model=pythia401m", ["model=pythia401m", "no such model", "did you mean 'pythia410m'?", "pythia410m, tiny"]),
        ("data=dmo", ["data=dmo", "no such data", "did you mean 'demo'?"]),
        ("method=[ig,gradsin]", ["method=[ig,gradsin]", "no such method", "did you mean 'gradsim'?"]),
        ("method=igg", ["method=igg", "no such method", "did you mean 'ig'?"]),
        ("model=", ["model=", "no such model", "Available: pythia410m, tiny"]),
        ("model=null", ["model=null", "expected a name", "pythia410m, tiny"]),
        ("method=5", ["method=5", "a name or a list of names", "gradsim, ig"]),
        ("modle=tiny", ["unknown key 'modle'", "did you mean 'model'?"]),
        ("sead=1", ["unknown key 'sead'", "did you mean 'seed'?"]),
        ("experimnt=good", ["unknown key 'experimnt'", "did you mean 'experiment'?"]),
        ("method.ig.n_stepz=5", ["'method.ig.n_stepz'", "did you mean 'method.ig.n_steps'?", "Keys of method.ig"]),
        ("method.ig.quadrature=5", ["'method.ig.quadrature'", "nothing like it exists", "layers, n_steps"]),
        ("methd.ig.n_steps=5", ["unknown key 'methd.ig.n_steps'", "did you mean 'method.ig.n_steps'?"]),
        ("n_steps=5", ["unknown key 'n_steps'", "did you mean 'method.ig.n_steps'?"]),
        ("method.gradsim.size=5", ["gradsim is not part of this run", "it has ig", "method=[ig,gradsim]"]),
        ("method.gradzim.size=5", ["no method 'gradzim'", "ig"]),
        ("data.limit.tset=5", ["'data.limit.tset'", "did you mean 'data.limit.test'?"]),
        ("model.name.x=3", ["model.name.x=3", "model.name is a single value", "model.name=VALUE"]),
        ("method.ig.layers.7=1", ["method.ig.layers.7=1", "method.ig.layers is a single value or a list"]),
        ("~sead", ["unknown key 'sead'", "did you mean 'seed'?"]),
        ("+seed=4", ["+seed=4", "already", "seed=VALUE without the +"]),
        ("+sede=4", ["unknown key 'sede'", "did you mean 'seed'?"]),
        ("+method.ig.n_step=4", ["unknown key 'method.ig.n_step'", "did you mean 'n_steps'?"]),
        ("method.ig.n_steps=abc", ["method.ig.n_steps='abc'", "expected an int", "got a str"]),
        ("seed=abc", ["seed='abc'", "expected an int"]),
        ("fit=maybe", ["fit='maybe'", "true or false"]),
        ("memory_budget=much", ["memory_budget='much'", "memory_budget=4GiB"]),
        ("data=table", ["data.path has no value", "data.path=VALUE"]),
        ("name=${nowhere}", ["name refers to a value that cannot be found", "nowhere"]),
        ("method=[ig,ig]", ["method=[ig,ig]", "method name 'ig' is given twice", "drop one", "@package method."]),
        ("method=[ig,ig_copy]", ["'ig' is given twice", "method/ig and method/ig_copy", "drop one"]),
        ("model=[tiny,pythia410m]", ["model takes one option, got 2", "-m model=tiny,pythia410m"]),
        ("experiment=twice", ["twice.yaml, defaults list", "method name 'ig' is given twice"]),
        ("experiment=gone", ["experiment/gone.yaml asks for model/tiney.yaml", "did you mean model/tiny?"]),
        ("experiment=typo", ["unknown key 'sede'", "did you mean 'seed'?"]),
        ("experiment=broken", ["broken.yaml, line", "not valid YAML"]),
        ("method=ig,gradsim", ["several values in a single run", "use -m", "method=[ig,gradsim]"]),
        ("seed=1,2", ["seed=1,2", "use -m", "seed=[1,2]"]),
        ("seed=range(1,3)", ["seed=range(1,3)", "use -m to run one job for each."]),
        ("tiny", ["'tiny' is no setting", "key=value", "model=tiny"]),
        ("=5", ["'=5' has no key", "key=value"]),
        ("se ed=5", ["'se ed' is no key", "trainer.max_epochs=1"]),
        ("tags=[a", ["'tags=[a' cannot be read", "closed brackets", "\"tags='[a'\""]),
        ("name=a=b", ["'name=a=b' cannot be read", "\"name='a=b'\""]),
        ("model@other=tiny", ["model@other", "write model=NAME"]),
        ("hydra.run.dri=x", ["unknown key 'hydra.run.dri'", "did you mean 'hydra.run.dir'?"]),
        ("hydra/launcher=bsic", ["no such hydra/launcher", "did you mean 'basic'?"]),
        ("hydra.job.chdir=perhaps", ["hydra.job.chdir=perhaps", "does not fit", "bool"]),
        ("hydra.launcher._target_=os.system", ["hydra.launcher._target_=os.system is not allowed"]),
        ("method.ig._target_=os.system", ["method.ig._target_=os.system is not allowed", "allow_targets=[os.system]"]),
        ("--experimental-rerun=x", ["--experimental-rerun", "pickle", "--config-dir RUN --config-name config"]),
        ("--multirn", ["unknown option '--multirn'", "did you mean --multirun?"]),
        ("--sede=3", ["unknown option '--sede=3'", "without dashes", "write sede=3"]),
        ("--config-name=trian", ["--config-name trian", "there is no trian.yaml", "did you mean 'train'?"]),
        ("--config-dir=nowhere", ["--config-dir nowhere", "no such folder"]),
    ],
)
def test_wrong_arguments(tree: Path, argument: str, parts: list[str]) -> None:
    text = refusal(tree, argument)
    assert [part for part in parts if part not in text] == [], text


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("method=ig,gradsin", ["method=gradsin", "no such method", "did you mean 'gradsim'?"]),
        ("model=tiny,pythia401m", ["model=pythia401m", "did you mean 'pythia410m'?"]),
        ("seed=1,x", ["seed='x'", "expected an int"]),
        ("method=[ig,ig],gradsim", ["'ig' is given twice"]),
        ("method=glob(x*)", ["method=glob(x*)", "nothing in method matches", "gradsim"]),
        ("seed=interval(0,1)", ["seed=interval(0,1)", "no list of values"]),
        ("hydra.job.name=a,b", ["hydra.job.name=a,b", "cannot be swept"]),
        ("modle=tiny,big", ["unknown key 'modle'", "did you mean 'model'?"]),
    ],
)
def test_wrong_sweeps_name_the_swept_value(tree: Path, argument: str, parts: list[str]) -> None:
    text = refusal(tree, "-m", argument)
    assert [part for part in parts if part not in text] == [], text


def test_every_job_of_a_small_sweep_is_checked(tree: Path) -> None:
    text = refusal(tree, "-m", "method=ig,gradsim", "method.ig.n_steps=1,2")
    assert "method ig is not part of this run" in text


def test_a_large_sweep_is_checked_value_by_value(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[list[str]] = []

    def counting(folder: Path, primary: str, overrides: list[str]) -> DictConfig:
        composed.append(overrides)
        return compose(folder, primary, overrides)

    monkeypatch.setattr("twinlens.conf.checking.overrides.MAX_JOBS_CHECKED", 3)
    check_command_line(["-m", "seed=0,1,2", "method.ig.n_steps=1,2", ALLOW], tree, counting, parse)
    jobs = [(0, 1), (1, 1), (2, 1), (0, 2)]
    assert composed == [[f"seed={seed}", f"method.ig.n_steps={steps}", ALLOW] for seed, steps in jobs]
    assert "seed='x'" in refusal(tree, "-m", "seed=0,1,x", "method.ig.n_steps=1,2")


def test_every_job_of_a_sweep_that_a_file_asks_for_is_checked(tree: Path) -> None:
    check(tree, "experiment=paper/all")
    check(tree, "experiment=paper/all", "seed=0,1")  # more of it, without -m
    assert "method ig is not part of this run" in refusal(tree, "experiment=paper/all", "method.ig.n_steps=2")
    check(tree, "experiment=paper/all", "method=ig", "method.ig.n_steps=2")  # what is typed takes a parameter's place
    check(tree, "experiment=paper/all", "method=ig", "method.ig.n_steps=2,3", "-m")
    assert "several values in a single run" in refusal(tree, "experiment=paper/all", "hydra.mode=RUN", "seed=0,1")
    assert "several values in a single run" in refusal(tree, "experiment=good", "seed=0,1")
    assert "did you mean 'paper/all'" in refusal(tree, "experiment=paper/al")


def test_remote_code_is_trusted_only_on_the_command_line(tmp_path: Path) -> None:
    folder = write_tree(tmp_path, {**TREE, "model/tiny.yaml": "name: tiny\ntrust_remote_code: true\n"})
    text = refusal(folder)
    assert "model.trust_remote_code" in text
    assert "say model.trust_remote_code=true on the command line" in text
    check(folder, "model.trust_remote_code=true")
    check(folder, "model.trust_remote_code=false")


def test_overrides_on_both_sides_of_an_option(tree: Path) -> None:
    with pytest.raises(UserError, match=r"'fit=false' stands after an option; put all key=value arguments side by"):
        check_command_line(["seed=1", "-m", "fit=false"], tree, compose, parse)


def test_only_the_command_line_can_allow_targets(tmp_path: Path) -> None:
    files = {**TREE, "train.yaml": TREE["train.yaml"].replace("allow_targets: []", "allow_targets: [tests]")}
    folder = write_tree(tmp_path, files)
    with pytest.raises(UserError, match=r"method.ig._target_=tests.conf.checking.shapes.Method is not allowed"):
        check(folder, allow=False)
    check(folder, "allow_targets=tests", allow=False)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("callbacks: {x: {_target_: os.system, command: x}}", ["hydra.callbacks.x._target_=os.system"]),
        ("callbacks: {x: {_target_: '${name}'}}", ["hydra.callbacks.x._target_=${name}"]),
        ("job_logging: {handlers: {file: {class: subprocess.Popen}}}", ["file.class=subprocess.Popen"]),
        ("job_logging: {formatters: {simple: {(): os.system}}}", ["simple.()=os.system"]),
        ("job_logging: {handlers: {console: {stream: 'ext://antigravity.x'}}}", ["ext://antigravity.x"]),
        ("job: {env_set: {LD_PRELOAD: x}}", ["hydra.job.env_set", "environment variables"]),
    ],
)
def test_hydra_settings_in_files_cannot_run_code(tmp_path: Path, content: str, parts: list[str]) -> None:
    text = refusal(write_tree(tmp_path, {**TREE, "hydra/default.yaml": content}))
    assert [part for part in parts if part not in text] == [], text


def test_files_that_do_not_compose_are_named(tmp_path: Path) -> None:
    broken = write_tree(tmp_path / "a", {**TREE, "train.yaml": TREE["train.yaml"] + "x: [1\n"})
    text = refusal(broken)
    assert "train.yaml, line" in text
    assert "not valid YAML" in text
    gone = write_tree(tmp_path / "b", {**TREE, "train.yaml": TREE["train.yaml"].replace("model: tiny", "model: tniy")})
    text = refusal(gone)
    assert "train.yaml asks for model/tniy.yaml" in text
    assert "did you mean model/tiny?" in text


def test_replay_takes_values(tree: Path, run: Path) -> None:
    assert replay(tree, run, "seed=5", "method.ig.n_steps=7").is_replay
    with pytest.raises(UserError, match=r"did you mean 'method.ig.n_steps'"):
        replay(tree, run, "method.ig.n_stps=7")


@pytest.mark.parametrize("choice", ["method=[ig]", "method=gradsim", "model=pythia410m", "debug=fdr"])
def test_replay_explains_that_groups_are_values(tree: Path, run: Path, choice: str) -> None:
    with pytest.raises(UserError) as caught:
        replay(tree, run, choice)
    group = choice.split("=")[0]
    parts = [choice, f"{run / 'config.yaml'} repeats a run", f"{group}.KEY=VALUE", "without --config-dir"]
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


def test_nothing_is_composed_for_hydras_own_help(tree: Path) -> None:
    command = check_command_line(["--hydra-help", "modle=tiny"], tree, compose, parse)
    assert command.informational
