"""A stage depends on what the code that it reaches means, and on no file beside it."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import yaml

from tests.callbacks.store.changed_code import ADDED, Package, changed
from twinlens.attribution.bridge.instance_neurons import InstanceNeurons
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.evaluation.neuron_level.layer_importance import LayerImportance
from twinlens.attribution.instance.bm25 import BM25
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.readouts import ReadoutKind
from twinlens.callbacks.attribute import stored_gradients, whole_gradient_factors
from twinlens.callbacks.attribute.bridge_scores import InstanceListReads
from twinlens.callbacks.attribute.instance_inputs import HeadReads, TextReads
from twinlens.callbacks.attribute.neuron_scores import ModelReads
from twinlens.callbacks.attribute.whole_gradient_scores import LayerReads
from twinlens.callbacks.evaluate import faithfulness, neuron_level, refits
from twinlens.callbacks.fit import stage as fit
from twinlens.callbacks.passes.costs import prediction_need
from twinlens.callbacks.predict import batch_size, known_prompts
from twinlens.callbacks.predict import stage as predict
from twinlens.callbacks.store import source_code, without_effect
from twinlens.callbacks.store.fingerprints import code_of, fingerprint_of, reached
from twinlens.callbacks.store.row_files import RowFiles
from twinlens.callbacks.store.source_code import module_code
from twinlens.data.demo import DemoDataModule

STAGES: dict[str, tuple[Any, ...]] = {
    "fit": (fit, DemoDataModule),
    "predict": (predict, DemoDataModule),
    "known prompts": (known_prompts,),
    "gradsim": (HeadReads, GradientSimilarity),
    "bm25": (TextReads, BM25),
    "ig": (ModelReads, IntegratedGradients),
    "ia_neurons": (InstanceListReads, InstanceNeurons),
    "whole gradients": (LayerReads, GradientSimilarity),
    "factors": (whole_gradient_factors,),
    "gradients": (stored_gradients, RowFiles),
    "faithfulness": (faithfulness, Faithfulness),
    "layer_importance": (neuron_level, LayerImportance),
    "refits": (refits,),
    "batch size": (batch_size, prediction_need),
}
"""What each stage calls `code_of` with."""
EVERY = set(STAGES)


def codes() -> dict[str, str]:
    return {stage: code_of(*parts) for stage, parts in STAGES.items()}


def redone(*modules: str) -> set[str]:
    """Stages whose code is another after a constant was added to modules of the project."""
    before = codes()
    with changed({f"twinlens.{module}": lambda text: text + ADDED for module in modules}):
        return {stage for stage, code in codes().items() if code != before[stage]}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """An empty package that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    made = Package(tmp_path, "users_own")
    yield made
    made.remove()


METHOD = '''"""A method."""

import math

from users_own import sums
from users_own.parts import half, third

FACTOR = 2


class Method:
    """What it is."""

    factor: float = FACTOR
    """What it multiplies with."""

    def score(self, value: float) -> float:
        """The score."""
        from users_own.late import late  # only here

        return math.sqrt(half(value)) * self.factor + late(third(value)) + sums.total([value])
'''
FILES = {
    "method.py": METHOD,
    "parts.py": "def half(x):\n    return x / 2\n\n\ndef third(x):\n    return x / 3\n",
    "twins.py": "def half(x):\n    return x / 2.5\n",
    "late.py": "from .twins import half\n\n\ndef late(x):\n    return half(x)\n",
    "sums.py": "def total(values):\n    return sum(values)\n",
    "beside.py": "VALUE = 1\n",
}
TARGET = "users_own.method.Method"


def code_after(package: Package, files: dict[str, str], target: str = TARGET) -> str:
    package.write(files)
    return code_of({"_target_": target})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2", "FACTOR = 2  # as in the paper"),
        ("FACTOR = 2", "\n\nFACTOR = (\n    2\n)"),
        ('"""A method."""', '"""A method of one\'s own."""'),
        ('    """What it is."""', '    """What it was."""'),
        ('        """The score."""\n', ""),
        ('    """What it multiplies with."""\n', '    """Factor."""\n'),
        ("import half, third", "import third, half"),
        ("from users_own.parts import half, third", "from .parts import half\nfrom .parts import third"),
        ("from users_own import sums", "import users_own.sums as sums"),
    ],
)
def test_how_code_is_written_does_not_count(package: Package, old: str, new: str) -> None:
    before = code_after(package, FILES)
    assert METHOD.count(old) == 1
    assert code_after(package, {**FILES, "method.py": METHOD.replace(old, new)}) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("method.py", "FACTOR = 2", "FACTOR = 3"),
        ("method.py", "FACTOR = 2", "FACTOR = 2.0"),
        ("method.py", "FACTOR = 2", "FACTOR = None"),
        ("method.py", "math.sqrt", "math.exp"),
        ("method.py", "import math", "import numpy as math"),
        ("method.py", "import half, third", "import half as third, third as half"),
        # the other one is reached already
        ("method.py", "import half, third", "import third\nfrom users_own.twins import half"),
        ("parts.py", "/ 2", "/ 4"),
        ("late.py", "half(x)", "-half(x)"),
        ("twins.py", "2.5", "2.25"),
        ("sums.py", "sum(", "max("),
    ],
)  # fmt: skip
def test_what_code_means_counts(package: Package, file: str, old: str, new: str) -> None:
    before = code_after(package, FILES)
    assert FILES[file].count(old) == 1
    assert code_after(package, {**FILES, file: FILES[file].replace(old, new)}) != before


@pytest.mark.parametrize(
    ("line", "use"),
    [
        ("from users_own.far import *", "VALUE"),
        ("from users_own import far", "far.VALUE"),
        ("import users_own.far", "users_own.far.VALUE"),
        ("import importlib\nfar = importlib.import_module('users_own.far')", "far.VALUE"),
        ("import beside_it as far", "far.VALUE"),
    ],
)
def test_every_form_of_import_is_followed(package: Package, tmp_path: Path, line: str, use: str) -> None:
    def code(value: int) -> str:
        package.write({"method.py": f"{line}\n\n\nclass Method:\n    value = {use}\n", "far.py": f"VALUE = {value}\n"})
        (tmp_path / "beside_it.py").write_text(f"VALUE = {value}\n", encoding="utf-8")
        return code_of({"_target_": TARGET})

    assert code(1) != code(2)


def test_a_file_beside_does_not_count(package: Package) -> None:
    before = code_after(package, FILES)
    assert code_after(package, {**FILES, "beside.py": "VALUE = 2\n", "new.py": "NEW = 1\n"}) == before


def test_a_moved_or_renamed_file_is_the_same(package: Package) -> None:
    before = code_after(package, FILES)
    moved = {
        "deep/__init__.py": "",
        "deep/way.py": METHOD.replace("users_own.parts", "users_own.a_piece")
        .replace("from users_own import sums", "from users_own.deep import adding")
        .replace("sums.total", "adding.total"),
        "a_piece.py": FILES["parts.py"],
        "deep/adding.py": FILES["sums.py"],
        "late.py": "from .zwilling import half\n\n\ndef late(x):\n    return half(x)\n",
        "zwilling.py": FILES["twins.py"],
    }
    assert code_after(package, moved, "users_own.deep.way.Method") == before


def test_the_place_of_a_configured_class_does_not_count(package: Package) -> None:
    package.write({**FILES, "moved.py": METHOD})
    settings = {"method": {"_target_": TARGET, "inner": [{"_target_": TARGET, "k": 1}]}}
    moved = {
        "method": {"_target_": "users_own.moved.Method", "inner": [{"_target_": "users_own.moved.Method", "k": 1}]}
    }
    assert fingerprint_of(moved) == fingerprint_of(settings)
    assert fingerprint_of({"method": {"_target_": "users_own.moved.Other"}}) != fingerprint_of(
        {"method": {"_target_": TARGET}}
    )
    assert code_of(settings) == code_of(moved) == code_of("users_own.method")


def test_a_class_without_a_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"source of the module twinlens\.models\.nothing cannot be found"):
        code_of("twinlens.models.nothing")
    with pytest.raises(UserError, match="move the class that the configuration names"):
        code_of(SimpleNamespace(__qualname__="Typed", __module__="typed_into_a_notebook"))


# -- the project's own stages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("data.collate", {"fit", "predict"}),
        ("data.tokenise", EVERY - {"known prompts", "ig", "ia_neurons", "faithfulness", "layer_importance", "refits",
                                   "batch size", "gradients"}),
        ("data.sampling", EVERY),
        ("attribution.instance.gradsim", {"gradsim", "whole gradients"}),
        ("attribution.instance.bm25", {"bm25"}),
        ("attribution.instance.influence", set()),
        ("attribution.neuron.ig", {"ig"}),
        ("attribution.neuron.random_neurons", {"faithfulness"}),
        ("attribution.instance.tracin", set()),
        ("attribution.bridge.instance_neurons", {"ia_neurons"}),
        ("attribution.gradients.row_pass", {"gradients"}),
        ("attribution.gradients.factor_sums", {"factors"}),
        ("attribution.evaluation.edits", {"faithfulness"}),
        ("attribution.evaluation.overlap", set()),
        ("attribution.evaluation.neuron_level.layer_importance", {"layer_importance"}),
        ("callbacks.fit.checkpoints", {"fit"}),
        ("callbacks.store.row_files", {"gradients"}),
        ("callbacks.passes.costs", {"batch size"}),
        ("callbacks.attribute.stage", set()),
        ("callbacks.report.sections", set()),
        ("callbacks.report.page", set()),
        ("callbacks.results.columns", set()),
        ("conf.checking.checks", set()),
    ],
)  # fmt: skip
def test_a_changed_constant_redoes_what_depends_on_it(module: str, stages: set[str]) -> None:
    assert redone(module) == stages


def test_comments_and_docstrings_of_the_whole_project_do_not_count() -> None:
    before = codes()
    modules = {module for parts in STAGES.values() for module in reached(modules_of(parts))}

    def retold(text: str) -> str:
        return '"""Another sentence."""\n' + text.replace(":\n", ":  # a remark\n") + "\n# the end\n"

    def is_whole(name: str) -> bool:  # a remark inside a string would be another string
        text = source_code.source_of(source_code._file_of(name))  # type: ignore[arg-type]
        return tells_the_same(text, retold(text))

    told = {module: retold for module in modules if is_whole(module)}
    assert len(told) > len(modules) / 2
    with changed(told):
        assert codes() == before


def tells_the_same(one: str, other: str) -> bool:
    """Whether two sources are the same but for strings that stand for themselves."""
    trees = []
    for text in (one, other):
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(getattr(node, "body", None), list):
                node.body = [line for line in node.body if not is_text(line)]  # type: ignore[attr-defined]
        trees.append(ast.dump(tree))
    return trees[0] == trees[1]


def is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def modules_of(parts: tuple[Any, ...]) -> list[str]:
    return [getattr(part, "__module__", None) or part.__name__ for part in parts]


def all_imports(names: list[str]) -> set[str]:
    """Everything that modules reach, the excluded ones included."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [module for module, _ in module_code(name).imports]
    return found


def test_every_exclusion_has_a_reason_and_is_needed() -> None:
    every = {module for parts in STAGES.values() for module in all_imports(modules_of(parts))}
    for table in (without_effect.CHANGES_NO_NUMBER, without_effect.STANDS_IN_THE_INPUTS):
        for listed, reason in table.items():
            assert reason
            assert any(module == listed or module.startswith(f"{listed}.") for module in every), listed


def test_changed_constants_in_excluded_modules_redo_nothing() -> None:
    named = {
        "twinlens.callbacks.passes.costs",
        "twinlens.callbacks.store.row_files",
    }  # by the stages that they matter to
    every = {module for parts in STAGES.values() for module in all_imports(modules_of(parts))}
    excluded = {module for module in every if without_effect.is_without_effect(module)}
    quiet = excluded - named - set(without_effect.STANDS_IN_THE_INPUTS)
    assert len(quiet) > 15
    assert redone(*(module.removeprefix("twinlens.") for module in quiet)) == set()


def test_what_an_excluded_module_imports_counts_where_it_is_reached_otherwise(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(without_effect.CHANGES_NO_NUMBER, "users_own.lock", "a lock")

    def code(value: int, imports: str) -> str:
        package.write(
            {
                "method.py": f"from users_own.lock import held\n{imports}\n\n\nclass Method:\n    lock = held\n",
                "lock.py": f"from users_own.values import VALUE\n\nheld = {value}\n",
                "values.py": f"VALUE = {value}\n",
            }
        )
        return code_of({"_target_": TARGET})

    assert code(1, "") == code(2, "")
    assert code(1, "from users_own.values import VALUE") != code(2, "from users_own.values import VALUE")


def test_no_stage_depends_on_a_method_or_evaluation_that_it_does_not_run(repository: Path) -> None:
    files = [*(repository / "conf" / "method").glob("*.yaml"), *(repository / "conf" / "evaluation").glob("*.yaml")]
    settings = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    configured = {source_code.module_of(found["_target_"]) for found in settings if "_target_" in found}
    assert len(configured) > 30
    own = {
        # the stage's own, and the control that faithfulness draws
        "faithfulness": {"twinlens.attribution.evaluation.faithfulness", "twinlens.attribution.neuron.random_neurons"},
    }
    for stage, parts in STAGES.items():
        found = reached(modules_of(parts[:1])).keys()
        assert found & configured == own.get(stage, set()), stage


def test_no_reached_module_names_another_in_a_string() -> None:
    """Such a string would be another one after a move."""
    every = {module for parts in STAGES.values() for module in reached(modules_of(parts))}
    named = [
        (module, node.value)
        for module in every
        for node in ast.walk(ast.parse(source_code.source_of(source_code._file_of(module))))  # type: ignore[arg-type]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("twinlens.")
        and " " not in node.value
    ]  # fmt: skip
    assert named == []


def test_each_module_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    true = source_code.source_of
    monkeypatch.setattr(source_code, "source_of", lambda file: (read.append(file), true(file))[1])
    source_code.module_code.cache_clear()
    codes()
    codes()
    assert len(read) == len(set(read)) > 50


# -- libraries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "version", "stages"),
    [
        ("torch", "999.1.0+cpu", EVERY),
        ("bm25s", "999.1", {"bm25"}),
        ("peft", "999.1", EVERY),  # the models import it where a checkpoint is an adapter
        ("safetensors", "999.1", set()),
        ("wandb", "999.1", set()),
        ("matplotlib", "999.1", set()),
    ],
)
def test_another_version_of_a_library_redoes_what_imports_it(
    library: str, version: str, stages: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = codes()
    true = source_code.installed_version
    monkeypatch.setattr(source_code, "installed_version", lambda name: version if name == library else true(name))
    source_code.version_of.cache_clear()
    assert {stage for stage, code in codes().items() if code != before[stage]} == stages
    source_code.version_of.cache_clear()


def test_a_patch_of_a_library_redoes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = codes()
    true = source_code.installed_version
    monkeypatch.setattr(source_code, "installed_version", lambda name: true(name) and f"{true(name)}.post7")
    source_code.version_of.cache_clear()
    assert codes() == before
    source_code.version_of.cache_clear()


def test_a_configured_class_of_a_library_brings_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"stop": {"_target_": "torchmetrics.classification.MulticlassAccuracy"}}
    assert code_of(settings) != code_of({})
    assert source_code.installed_version("yaml") != ""  # known by another name than that of its package
    assert source_code.installed_version("no_such_library") == ""


# -- what the user configures --------------------------------------------------------------------------------------


def other_code(package: Package, inputs: Callable[[], dict[str, Any]]) -> bool:
    """Whether a stage's inputs see a change in the class `users_own.method.Method`."""
    package.write({"method.py": "class Method:\n    value = 1\n"})
    before = fingerprint_of(inputs())
    package.write({"method.py": "class Method:\n    value = 2\n"})
    return fingerprint_of(inputs()) != before


def session_of(**other: Any) -> Any:
    """What inputs of fit and prediction ask of a run."""
    data = SimpleNamespace(batch_size=1, splits={"test": datasets.Dataset.from_dict({"a": [1]})}, fingerprint=str)
    trainers = SimpleNamespace(numbers="32-true")
    return SimpleNamespace(
        **{
            "data": data,
            "trainers": trainers,
            "weights": "",
            "seed": 0,
            "model_target": fit.__name__,
            "readout": ReadoutKind(),
            **other,
        }
    )


@pytest.mark.parametrize(
    ("model", "trainer", "callbacks", "seen"),
    [
        ({"_target_": TARGET}, {}, {}, True),
        ({}, {"plugins": [{"_target_": TARGET}]}, {}, True),
        ({}, {}, {"mine": {"_target_": TARGET}}, True),
        ({}, {"strategy": {"_target_": TARGET}}, {}, False),  # must not change what is learned
    ],
)
def test_a_fit_depends_on_the_classes_that_it_is_configured_with(
    package: Package, model: dict[str, Any], trainer: dict[str, Any], callbacks: dict[str, Any], seen: bool
) -> None:
    assert other_code(package, lambda: fit.fit_inputs(session_of(), model, trainer, callbacks, "scratch")) == seen


def test_predictions_depend_on_the_class_of_the_model(package: Package) -> None:
    assert other_code(package, lambda: predict.examples_inputs(session_of(model_target=TARGET), "test"))
    assert not other_code(package, lambda: predict.examples_inputs(session_of(), "test"))


def test_a_dataset_of_ones_own_counts(package: Package) -> None:
    def inputs() -> dict[str, Any]:
        made = importlib.import_module("users_own.method").Method()
        vars(made).update(vars(session_of().data))
        return predict.examples_inputs(session_of(data=made), "test")

    assert other_code(package, inputs)
