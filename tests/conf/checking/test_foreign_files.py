"""A configuration from elsewhere: what it may not say is refused in one sentence before anything is run or written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.faults.fuzzing import EVIL, REPOSITORY, Case, Scratch, check
from twinlens.attribution.errors import UserError
from twinlens.callbacks.run.run_outcome import sentence
from twinlens.conf.checking.allowed_classes import resolve_target
from twinlens.conf.checking.config_sources import compose
from twinlens.conf.checking.foreign_files import check_foreign_content
from twinlens.conf.checking.size_bounds import in_time
from twinlens.conf.checking.trusted_hydra_node import check_names

RUN = ("--config-dir", "run", "--config-name", "config")
START = "defaults: [train, _self_]\n"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    made = Scratch(tmp_path)
    monkeypatch.chdir(made.work)
    monkeypatch.syspath_prepend(str(made.modules))
    return made


def refusal(scratch: Scratch, text: str, *arguments: str, **others: str) -> str:
    """The sentence that a configuration is refused with; nothing was imported, written or changed."""
    files = {
        "run/config.yaml": text,
        **{f"run/{name.replace('__', '/')}.yaml": given for name, given in others.items()},
    }
    case = Case((*RUN, *arguments), files)
    scratch.lay(case)
    with pytest.raises(UserError) as caught:
        check(case.arguments)
    assert scratch.harm(case) == ""
    scratch.clear(case)
    return sentence(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "subprocess.Popen", f"{EVIL}.Thing", f"{EVIL}.call", "lightning.os.system", "torch.os.system",
        "twinlens.data.text_data_module.torch.load", "twinlens.callbacks.sweep.job_process.run_as_process",
        "twinlens.callbacks.store.files.remove_partial_files",
        "twinlens.callbacks.store.files.Path", "twinlens.attribution.neuron.ig",
        "twinlens.models.module.TextClassifier.load_from_checkpoint",
        "lightning.pytorch.Trainer.fit", "lightning.pytorch.cli.LightningCLI", "torch.__init__.os", "${method.a}",
    ],
)  # fmt: skip
def test_only_classes_of_known_packages_are_named(scratch: Scratch, target: str) -> None:
    text = START + yaml.safe_dump({"method": {"evil": {"_target_": target}, "a": "os.system"}})
    assert "method.evil._target_" in refusal(scratch, text)


@pytest.mark.parametrize(
    ("place", "target", "what"),
    [
        ("method.evil", "twinlens.attribution.evaluation.accuracy.Accuracy", "is not a method"),
        ("method.evil", "twinlens.data.demo.DemoDataModule", "is not a method"),
        ("method.evil", "twinlens.attribution.instance.protocol.InstanceMethod", "is not a method"),
        ("method.evil", "twinlens.callbacks.store.store.Store", "is not a method"),
        ("evaluation.evil", "twinlens.attribution.instance.gradsim.GradientSimilarity", "is not an evaluation"),
        ("callbacks.evil", "twinlens.callbacks.sweep.sweep_table.SweepTable", "is not a callback of Lightning"),
        ("callbacks.evil", "torch.nn.Linear", "is not a callback of Lightning"),
        ("logger.evil", "lightning.pytorch.callbacks.Timer", "is not a logger of Lightning"),
        ("model", "twinlens.data.demo.DemoDataModule", "is not a model"),
        ("data", "twinlens.models.module.TextClassifier", "is not a data module"),
        ("trainer", "lightning.pytorch.callbacks.Timer", "is not Lightning's Trainer"),
        ("trainer.strategy", "twinlens.callbacks.run.folder.RunFolder", "is not a strategy, plugin"),
        ("method.ig.n_steps", "twinlens.callbacks.store.store.Store", "is not a strategy, plugin"),
    ],
)
def test_a_class_belongs_to_its_place(scratch: Scratch, place: str, target: str, what: str) -> None:
    dotted = {"path": "x"} if target.endswith("RunFolder") else {}
    content: dict[str, object] = {"_target_": target, **dotted}
    for part in reversed(place.split(".")):
        content = {part: content}
    assert what in refusal(scratch, START + yaml.safe_dump(content))


@pytest.mark.parametrize(
    "key", ["_partial_: true", "_args_: [x, true]", "_args_: 5", "_recursive_: false", "_convert_: all"]
)
def test_nothing_changes_how_a_class_is_built(scratch: Scratch, key: str) -> None:
    message = refusal(scratch, START + f"model: {{{key}}}\n")
    assert f"model.{key.split(':')[0]}" in message


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ("callbacks: {c: {_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: ../outside}}", "dirpath"),
        ("callbacks: {c: {_target_: lightning.pytorch.callbacks.ModelCheckpoint, filename: ../../v}}", "filename"),
        ("callbacks: {c: {_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: inside}}", "dirpath"),
        ("logger: {csv: {_target_: lightning.pytorch.loggers.CSVLogger, save_dir: ../outside}}", "save_dir"),
        ("logger: {csv: {name: ../outside}}", "logger.csv.name"),
        ("logger: {csv: {version: ..}}", "logger.csv.version"),
        ("logger: {b: {_target_: lightning.pytorch.loggers.TensorBoardLogger, sub_dir: /tmp}}", "sub_dir"),
        ("logger: {b: {_target_: lightning.pytorch.loggers.TensorBoardLogger, log_dir: x}}", "log_dir"),
        ("trainer: {default_root_dir: ../outside}", "trainer.default_root_dir"),
        ("trainer: {profiler: {_target_: lightning.pytorch.profilers.SimpleProfiler, dirpath: x}}", "dirpath"),
        ("trainer: {profiler: {_target_: lightning.pytorch.profilers.PyTorchProfiler, on_trace_ready: x}}", "profiler"),
        (
            "callbacks: {c: {_target_: twinlens.callbacks.passes.predict_pass.ShardWriter, folder: ../outside, "
            "last_batch: []}}",
            "folder",
        ),
    ],
)
def test_library_classes_write_where_the_run_does(scratch: Scratch, node: str, key: str) -> None:
    assert key in refusal(scratch, START + node)


@pytest.mark.parametrize(
    "node",
    [
        "run: {dir: ../outside}", "sweep: {dir: /tmp/x}", "sweep: {subdir: ../../x}", "output_subdir: ../../x",
        "launcher: {_target_: subprocess.Popen}", "sweeper: {_target_: os.system}", "callbacks: {a: {_target_: x.y}}",
        "job_logging: {handlers: {h: {class: logging.FileHandler, filename: victim.txt, mode: w}}}",
        "hydra_logging: {formatters: {f: {(): os.system}}}", "job_logging: {root: {handlers: ['ext://os.environ']}}",
        "job_logging: {handlers: {h: {class: 'cfg://x'}}}", "job: {env_set: {LD_PRELOAD: x}}", "job: {chdir: true}",
        "job: {env_copy: [HOME]}", "job: {name: ../x}", "help: {template: '${model}'}", "verbose: true",
        "sweeper: {params: {paths.store: /tmp/x}}", "sweeper: {params: {allow_targets: '[os]'}}",
        "sweeper: {params: {hydra.run.dir: x}}", "sweeper: {params: {name: '\\${oc.env:HOME}'}}",
    ],
)  # fmt: skip
def test_hydras_own_settings_are_the_projects(scratch: Scratch, node: str) -> None:
    assert refusal(scratch, START + f"hydra: {{{node}}}\n").startswith("hydra.")


@pytest.mark.parametrize(
    ("defaults", "others"),
    [
        ("[train, other@hydra.run: other, _self_]", {"other__other": "dir: ../outside\n"}),
        ("[train, {override hydra/launcher: evil}, _self_]", {"hydra__launcher__evil": "_target_: os.system\n"}),
        ("[train, {override /hydra: default}, _self_]", {"hydra__default": "run: {dir: ../outside}\n"}),
        ("[train, other, _self_]", {"other": "# @package hydra\nrun: {dir: ../outside}\n"}),
        ("[_self_]", {}),
    ],
)
def test_whatever_way_a_file_reaches_hydras_settings(scratch: Scratch, defaults: str, others: dict[str, str]) -> None:
    refusal(scratch, f"defaults: {defaults.replace('other@hydra.run: other', '{other@hydra.run: other}')}\n", **others)


def test_places_are_those_of_the_command_line(scratch: Scratch, capsys: pytest.CaptureFixture[str]) -> None:
    text = START + "paths: {output_dir: ../outside, store: ../outside/store}\n"
    scratch.lay(Case((), {"run/config.yaml": text}))
    from twinlens.conf.checking.checks import check_command_line
    from twinlens.conf.checking.config_sources import parse_typed

    command = check_command_line(list(RUN), REPOSITORY / "conf", compose, parse_typed)
    assert command.arguments[-2:] == ["++paths.output_dir='outputs'", "++paths.store='outputs/store'"]
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert "paths.output_dir=../outside of config.yaml is not used" in told[0]
    typed = check_command_line([*RUN, "paths.output_dir=mine"], REPOSITORY / "conf", compose, parse_typed)
    assert typed.arguments[-1] == "++paths.store='mine/store'"


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}", "${oc.env:NOTHING,x}", "a ${oc.decode:'1'}", "${now:%Y}", "${hydra:runtime.cwd}",
        "${data_name:${data}}", "${oc.create:'a: 1'}", "${${x}:HOME}", "${oc.select:seed}", "${x.${oc.env:HOME}}",
    ],
)  # fmt: skip
def test_a_file_calls_no_resolver(text: str) -> None:
    with pytest.raises(UserError, match="calls a resolver"):
        check_foreign_content({"a": [{"b": text}]}, Path("x.yaml"))
    with pytest.raises(UserError, match="calls a resolver"):
        check_foreign_content({"defaults": ["train", {"model": text}]}, Path("x.yaml"))


@pytest.mark.parametrize("text", ["a", "\\${oc.env:HOME}", "${model.name}", "${.a.b} and ${..c}", "${a[0]}", "{x:y}"])
def test_references_to_keys_and_plain_texts_pass(text: str) -> None:
    check_foreign_content({"a": [{"b": text}]}, Path("x.yaml"))


def test_every_file_that_is_read_is_checked(scratch: Scratch) -> None:
    text = "defaults: [train, {other: x}, _self_]\n"
    assert "other/x.yaml" in refusal(scratch, text, other__x="a: ['${oc.env:HOME}']\n")
    assert "config.yaml" in refusal(scratch, "defaults: [train, {model: '${oc.env:HOME}'}, _self_]\n")


def test_references_to_keys_are_free(scratch: Scratch) -> None:
    scratch.lay(Case((), {"run/config.yaml": START + "name: ${model.name}_x\ntags: ['\\${oc.env:HOME}']\n"}))
    check(RUN)


@pytest.mark.parametrize(
    "name",
    ["../up", "a/b", "a\\b", "..", ".hidden", "~", "con", "NUL", "x" * 200, "a\0b", "a\nb", "", "trailing."],
)
def test_names_are_single_parts_of_paths(name: str) -> None:
    for values in ({"method": {name: {}}}, {"logger": {name: {}}}, {"model": {"name": name}}):
        with pytest.raises(UserError, match="the name"):
            check_names(values)


def test_names_of_a_file_are_checked(scratch: Scratch) -> None:
    node = {"_target_": "twinlens.attribution.instance.random_instances.RandomInstances"}
    assert "the name" in refusal(scratch, START + yaml.safe_dump({"method": {"../../escaped": node}}))
    assert "the name" in refusal(scratch, START + "model: {name: ../../escaped}\n")
    assert "the name" in refusal(scratch, START + "data: {name: ..}\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &a [x]\n" + "".join(f"{c}: &{c} [{f'*{p}, ' * 40}]\n" for p, c in ("ab", "bc", "cd", "de")), "alias"),
        ("tags: &a [*a]\n", "alias"),
        ("tags: " + "[" * 100 + "]" * 100 + "\n", "nesting"),
        ("tags: " + "[" * 30_000 + "\n", "nesting"),
        ("name: '" + "x" * 300_000 + "'\n", "bytes"),
        ("name: ${a0}\n" + "".join(f"a{n}: ${{a{n + 1}}}${{a{n + 1}}}\n" for n in range(40)) + "a40: xx\n", ""),
        ("tags: [" + ", ".join(["'${name}'"] * 60) + "]\nname: '" + "x" * 100_000 + "'\n", "grows"),
        ("name: ${tags}\ntags: ['${name}']\n", "circle"),
        ("name: ${name}\n", "circle"),
        ("name: '" + "${" * 3_000 + "'\n", "refer"),
        ("seed: " + "9" * 5_000 + "\n", ""),
    ],
)  # fmt: skip
def test_bombs_have_bounds(scratch: Scratch, text: str, told: str) -> None:
    assert told in refusal(scratch, START + text)


def test_values_of_values_do_not_multiply(scratch: Scratch) -> None:
    levels = "".join(f"  p{n}: '${{paths.p{n + 1}}}${{paths.p{n + 1}}}'\n" for n in range(28))
    assert "grows" in refusal(scratch, f"{START}paths:\n{levels}  p28: xxxx\n")


def test_files_that_include_each_other_end(scratch: Scratch) -> None:
    files = {f"g__f{n}": f"defaults: [{{f{n + 1}@a: f{n + 1}}}, {{f{n + 1}@b: f{n + 1}}}]\n" for n in range(3)}
    refusal(scratch, "defaults: [train, {g: f0}, _self_]\n", **files, g__f3="defaults: [f0]\n")


def test_composing_is_bounded_in_time() -> None:
    with pytest.raises(UserError, match="seconds to compose"):
        spin()


def spin() -> None:
    with in_time("x.yaml", 0.2):
        while True:
            pass


def test_a_package_on_the_search_path_is_not_imported(scratch: Scratch) -> None:
    assert "searchpath" in refusal(scratch, f"{START}hydra: {{searchpath: ['pkg://{EVIL}']}}\n")
    assert "no folder" in refusal(scratch, START, f"hydra.searchpath=[pkg://{EVIL}]")


def test_files_of_the_search_path_are_from_elsewhere(scratch: Scratch) -> None:
    scratch.lay(
        Case((), {"more/method/mine.yaml": "# @package method.mine\n_target_: os.system\nx: '${oc.env:HOME}'\n"})
    )
    with pytest.raises(UserError, match="resolver"):
        check(("hydra.searchpath=[file://more]", "method=mine"))


def test_allowed_names_are_imported_only_then(scratch: Scratch) -> None:
    assert "allow_targets" in refusal(scratch, START + f"method: {{evil: {{_target_: {EVIL}.Thing}}}}\n")
    resolve_target(f"{EVIL}.Thing", "x", [EVIL])
    assert scratch.mark.exists()
