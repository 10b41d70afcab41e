"""`_target_` nodes against the signatures of their classes."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.targets import check_targets

SHAPES = "tests.conf.checking.shapes"


def check(node: dict[str, Any], **options: Any) -> None:
    check_targets(OmegaConf.create({"method": {"ig": node}}), allow=["tests.conf.checking.shapes"], **options)


def message(node: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        check(node, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def method(**arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{SHAPES}.Method", **arguments}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"n_steps": 3, "damping": 1, "layers": [0, 1], "path": "a/b", "weights": {"a": 1}, "exact": True},
        {"window": {"start": 1}, "limit": {"test": 3}, "pair": [1, "a"], "names": ["x"]},
        {"window": {"_target_": f"{SHAPES}.Window", "start": 2}},
        {"inner": {"_target_": f"{SHAPES}.SpecialInner", "size": 2}},
        {"act": {"_target_": f"{SHAPES}.Inner", "_partial_": True}},
        {"anything": [{"_target_": f"{SHAPES}.Inner"}]},
        {"hidden": "a name that only a type checker can resolve is not checked"},
        {"_args_": [3, "left"]},
        {"_convert_": "all", "_recursive_": False},
    ],
)
def test_valid_nodes_pass(arguments: dict[str, Any]) -> None:
    check(method(**arguments))


def test_unknown_key_names_the_nearest_parameter_and_the_path() -> None:
    text = message(method(n_stepz=5))
    assert "'method.ig.n_stepz'" in text
    assert "did you mean 'n_steps'?" in text
    assert "Method" in text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"n_steps": "abc"}, ["method.ig.n_steps='abc'", "expected an int", "got a str"]),
        ({"n_steps": True}, ["method.ig.n_steps=True", "expected an int", "got a bool"]),
        ({"n_steps": 2.5}, ["method.ig.n_steps=2.5", "expected an int", "got a float"]),
        ({"n_steps": None}, ["method.ig.n_steps=None", "expected an int", "got null"]),
        ({"damping": "1e-3x"}, ["method.ig.damping", "expected a float"]),
        ({"preset": "midpont"}, ["method.ig.preset='midpont'", "'right' or 'left'", "did you mean 'midpoint'?"]),
        ({"layers": [0, "x"]}, ["method.ig.layers[1]='x'", "expected an int"]),
        ({"layers": 3}, ["method.ig.layers=3", "a list[int] or null"]),
        ({"names": "claim"}, ["method.ig.names='claim'", "write [claim]"]),
        ({"path": 3}, ["method.ig.path=3", "a path or null"]),
        ({"weights": {"a": "b"}}, ["method.ig.weights.a='b'", "expected a float"]),
        ({"exact": "yes"}, ["method.ig.exact='yes'", "true or false"]),
        ({"window": {"start": 1, "stpo": 2}}, ["'method.ig.window.stpo'", "did you mean 'stop'?"]),
        ({"window": {"stop": 2}}, ["method.ig.window.start is missing", "expected an int"]),
        ({"window": {"start": "x"}}, ["method.ig.window.start='x'", "expected an int"]),
        ({"limit": {"tset": 1, "test": 2}}, ["'method.ig.limit.tset'", "did you mean 'test'?"]),
        ({"limit": {"test": "x"}}, ["method.ig.limit.test='x'", "expected an int"]),
        ({"pair": [1, 2]}, ["method.ig.pair[1]=2", "expected a str"]),
        ({"inner": {"_target_": f"{SHAPES}.Window", "start": 1}}, ["method.ig.inner=Window", "an Inner or null"]),
        ({"inner": {"_target_": f"{SHAPES}.Inner", "sise": 1}}, ["'method.ig.inner.sise'", "did you mean 'size'?"]),
        ({"anything": [{"_target_": f"{SHAPES}.Inner", "size": "x"}]}, ["method.ig.anything[0].size='x'"]),
        ({"_args_": ["x"]}, ["method.ig.n_steps='x'", "expected an int"]),
        ({"path": "???"}, ["method.ig.path has no value", "method.ig.path=VALUE"]),
        ({"path": "${nowhere}"}, ["method.ig.path", "nowhere", "correct the name"]),
    ],
)
def test_wrong_values(arguments: dict[str, Any], parts: list[str]) -> None:
    text = message(method(**arguments))
    assert [part for part in parts if part not in text] == [], text


def test_number_where_text_is_expected_says_how_to_quote() -> None:
    assert "quote it to make it text: \"'3'\"" in message({"_target_": f"{SHAPES}.Needs", "path": 3})


def test_missing_required_argument() -> None:
    text = message({"_target_": f"{SHAPES}.Needs"})
    assert "method.ig.path is missing" in text
    assert "expected a str" in text
    assert "+method.ig.path=VALUE" in text


def test_required_argument_of_a_partial_or_provided_by_the_code_may_be_absent() -> None:
    check({"_target_": f"{SHAPES}.Needs", "_partial_": True})
    check({"_target_": f"{SHAPES}.Needs"}, provided={"method.ig": ["path"]})
    check({"_target_": f"{SHAPES}.Needs"}, provided={"method.*": ["path"]})
    assert "method.ig.path is missing" in message({"_target_": f"{SHAPES}.Needs"}, provided={"data": ["path"]})


def test_open_ended_signature_takes_any_further_key() -> None:
    check({"_target_": f"{SHAPES}.Open", "whatever": 1})
    assert "method.ig.size" in message({"_target_": f"{SHAPES}.Open", "size": "x", "whatever": 1})


@pytest.mark.parametrize(
    ("name", "free", "refused"),
    [
        ("HandsOn", {"name": "a", "extra": 0.1, "size": 2, "limit": {"a": 1}}, ["fixed", "other"]),
        ("HandsOnTwice", {"depth": 2, "name": "a", "size": 2}, ["extra", "fixed", "options"]),
        ("KeepsOptions", {"anything": "goes"}, []),
    ],
)
def test_options_handed_on_to_the_next_class_are_checked_there(
    name: str, free: dict[str, Any], refused: list[str]
) -> None:
    target = f"{SHAPES}.{name}"
    check({"_target_": target, **free})
    for key in refused:
        assert f"unknown key 'method.ig.{key}'" in message({"_target_": target, key: 1})
    if refused:
        assert "method.ig.size='x': expected an int" in message({"_target_": target, "size": "x"})


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "antigravity.fly",
        "transformers.AutoModel",
        "torch.load",
        "torch.hub.load",
        "torch.utils.cpp_extension.load",
        "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
        "lightning.pytorch.cli.LightningCLI",
        "lightning.pytorch.LightningModule.load_from_checkpoint",
        "twinlens.attribution.counter_random.torch.load",
        "twinlens.attribution.counter_random.torch.hub.load",
        "tests.conf.checking.test_targets.check",
    ],
)
def test_names_outside_the_allowed_packages_are_refused(target: str) -> None:
    text = message({"_target_": target})
    assert f"method.ig._target_={target} is not allowed" in text
    assert f"allow_targets=[{target}]" in text


def test_a_package_is_not_imported_to_find_out_that_it_is_not_allowed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "not allowed" in message({"_target_": "stranger.Thing"})
    assert not (tmp_path / "ran").exists()
    check_targets({"a": {"_target_": "stranger.Thing"}}, allow=["stranger"])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["build_inner", "system", "Method.prepare", "os.system", "os.PathLike", "dataclasses.dataclass", "Path.cwd"]
)
def test_of_an_allowed_module_classes_alone_are_served(name: str) -> None:
    target = f"{SHAPES}.{name}"
    assert f"method.ig.inner._target_={target} is no class" in message(method(inner={"_target_": target}))
    with pytest.raises(UserError, match="is no class"):
        check_targets({"a": {"_target_": target}}, allow=[target])


def test_nodes_inside_lists_and_unbuilt_nodes_are_held_to_the_allowed_packages() -> None:
    evil = {"_target_": "os.system"}
    assert "method.ig.anything[0]._target_=os.system" in message(method(anything=[evil]))
    assert "method.ig.anything._target_=os.system" in message(method(anything=evil, _recursive_=False))
    assert "method.ig._args_[0]._target_=os.system" in message(method(_args_=[evil]))


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (f"{SHAPES}.Methd", ["no 'Methd'", f"did you mean {SHAPES}.Method?"]),
        ("twinlens.attribution.instanse.gradsim.X", ["no 'instanse'", "attribution"]),
        ("torch.optim.AdamX", ["no 'AdamX'", "did you mean torch.optim.Adam"]),
        ("Method", ["names no class", "package.module.Class"]),
        ("a..b", ["names no class"]),
        (3, ["names no class"]),
        ("torch.nn.modules", ["is no class"]),
    ],
)
def test_names_that_lead_nowhere(target: Any, parts: list[str]) -> None:
    text = message({"_target_": target})
    assert "method.ig._target_" in text
    assert [part for part in parts if part not in text] == [], text


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "lightning.Trainer", "max_epochs": 1, "devices": "auto", "precision": "bf16-mixed"},
        {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3, "betas": [0.9, 0.99]},
        {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "outputs"},
        {"_target_": "torchmetrics.classification.MulticlassAccuracy", "num_classes": 3, "average": "macro"},
    ],
)
def test_library_classes_pass(node: dict[str, Any]) -> None:
    check_targets({"trainer": node})


def test_a_library_signature_is_enforced() -> None:
    with pytest.raises(UserError, match=r"'trainer.max_epoch'.*did you mean 'max_epochs'"):
        check_targets({"trainer": {"_target_": "lightning.Trainer", "max_epoch": 1}})
    with pytest.raises(UserError, match=r"trainer.max_epochs='x'.*expected an int"):
        check_targets({"trainer": {"_target_": "lightning.Trainer", "max_epochs": "x"}})
