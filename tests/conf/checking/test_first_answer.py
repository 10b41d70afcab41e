"""Answers before any library is loaded: they are those of the whole check, and never refuse what it accepts."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

import twinlens
from tests.bad_inputs import BAD_INPUTS
from tests.conftest import REPOSITORY
from tests.test_docs import COMMANDS
from twinlens.attribution.errors import UserError
from twinlens.conf.checking.checks import check_command_line
from twinlens.conf.checking.config_folders import ConfigTree
from twinlens.conf.checking.config_sources import compose, parse_typed
from twinlens.conf.checking.first_answer import EXAMPLES, first_answer, help_text, misspelt, only_prints

CONF = REPOSITORY / "conf"
MISSPELT = [
    "modle=tiny",
    "model=tiyn",
    "method=[ig,grdsim]",
    "evaluation=lsd",
    "model.learning_rat=1",
    "method.ig.n_stepz=4",
    "model=tiny model.architecture.hidden=3 seed=1",
    "data=mnli data.n_train=3",
    "sede=1 method=ig",
    "trainer=ddp trainer.device=2",
    "debug=fdr data.limit.trian=4",
    pytest.param("-m seed=0,1 model=tiny,tyni", marks=pytest.mark.long),
]
LEFT_ALONE = [
    "",
    "model=local",
    "tiny",
    "method.gradsim.top_k=3 method=ig",
    "method.ig.target=gold",
    "+method.ig.n_stepz=4",
    "experiment=averitec_tiny data.no_such_key=1",
    "model=choice(tiny,gpt2)",
    "--config-dir elsewhere modle=tiny",
    "hydra.sweep.dirr=x",
    "callbacks=null",
    "data.limit.train=null",
]


@pytest.mark.parametrize("line", MISSPELT)
def test_a_misspelt_name_is_told_in_the_words_of_the_whole_check(line: str) -> None:
    arguments = shlex.split(line)
    answer = first_answer(arguments, CONF)
    assert answer is not None
    with pytest.raises(UserError) as whole:
        check_command_line(arguments, CONF, compose, parse_typed)
    code, text = answer
    said = str(whole.value)
    if line.startswith("-m"):  # one job of the sweep is named there
        said = said.replace("model=tyni:", "model=tiny,tyni:")
    assert (code, text) == (2, f"refused: {said}")


@pytest.mark.parametrize("line", LEFT_ALONE)
def test_what_is_not_plain_is_left_to_the_whole_check(line: str) -> None:
    assert first_answer(shlex.split(line), CONF) is None


EVERYWHERE = {
    **{f"{group}=nosuch": group for group in ConfigTree((CONF,)).groups() if group != "hydra"},
    **{f"{group}x=tiny": group for group in ConfigTree((CONF,)).groups() if group != "hydra"},
    "model.heads=mlp": "model.head",
    "data.n_trian=3": "data.n_train",
    "method.ig.n_stepz=3": "method.ig.n_steps",
    "evaluation.faithfulness.comprehensivness=[1]": "evaluation.faithfulness.comprehensiveness",
    "trainer.max_epoch=3": "trainer.max_epochs",
    "logger.csv.nmae=x": "logger.csv.name",
    "callbacks.checkpoint.x=1": "callbacks.checkpoint",
    "paths.stroe=x": "paths.store",
    "store.prun=all": "store.prune",
    "report.off=x": "report.of",
    "method=[ig,gradsin]": "gradsim",
    "-m method=ig,gradsin seed=0,1": "gradsim",
    "-m method=[ig],[influence,gradsin] seed=0,1": "gradsim",
    "-m seed=0,1 method.ig.n_stepz=3,4": "method.ig.n_steps",
}
"""Command line → what its answer names: a choice and a key of every group, lists and sweeps."""


def test_a_misspelt_name_anywhere_is_answered_without_a_library() -> None:
    code = (
        "import json, pathlib, shlex, sys\n"
        "from twinlens.conf.checking.first_answer import first_answer\n"
        f"found = [first_answer(shlex.split(line), pathlib.Path({str(CONF)!r})) for line in {list(EVERYWHERE)!r}]\n"
        "heavy = [name for name in ('torch', 'hydra', 'lightning', 'transformers', 'numpy') if name in sys.modules]\n"
        "print(json.dumps([found, heavy]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers, heavy = json.loads(done.stdout)
    assert heavy == []
    for (line, named), answer in zip(EVERYWHERE.items(), answers, strict=True):
        assert answer is not None, line
        assert answer[0] == 2
        assert named in answer[1], line


def test_nothing_is_refused_that_the_docs_show_and_what_is_bad_only_in_the_same_words() -> None:
    shown = [shlex.split(arguments, comments=True) for page, arguments in COMMANDS if page != "extending.md"]
    assert len(shown) > 50
    assert [line for line in shown if "--help" not in line and first_answer(line, CONF) is not None] == []
    answered = 0
    for bad in BAD_INPUTS:
        answer = first_answer(bad.arguments, CONF)
        if answer is not None:
            answered += 1
            assert [part for part in bad.told if part not in answer[1]] == [], bad.what
    assert answered >= 3


def test_help_shows_every_group_and_commands_that_are_accepted() -> None:
    said = help_text(CONF)
    groups = {entry for entry in ConfigTree((CONF,)).groups() if entry != "checking"}
    assert [group for group in sorted(groups) if f"\n  {group}: " not in said] == []
    assert len(EXAMPLES) == 5
    assert max(map(len, said.splitlines())) <= 120
    for line, _ in EXAMPLES:
        assert f"python train.py {line}".rstrip() in said
        assert misspelt(shlex.split(line), ConfigTree((CONF,))) is None
        check_command_line(shlex.split(line), CONF, compose, parse_typed)
    for line in (["--version"], ["model=tiny", "--version"]):
        assert first_answer(line, CONF) == (0, f"twinlens {twinlens.__version__}")
    assert (only_prints(["--cfg", "job"]), only_prints(["--info=all"]), only_prints(["seed=1"])) == (True, True, False)


def started(*arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit code of train.py, its lines on stdout and stderr, and at the end which libraries were loaded by then."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['train.py', *{list(arguments)!r}]\n"
        "class Loaded(Exception): pass\n"
        "class Stop:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'hydra': raise Loaded\n"
        "sys.meta_path.insert(0, Stop())\n"
        "code = 0\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit as error: code = error.code\n"
        "except Loaded: code = 99\n"
        "print([name for name in ('torch', 'hydra', 'lightning', 'transformers') if name in sys.modules])\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def test_no_heavy_library_is_loaded_before_the_first_line() -> None:
    code, out, err = started("method.ig.n_stepz=4")
    assert (code, out) == (2, ["[]"])
    assert err == [str(f"refused: {misspelt(['method.ig.n_stepz=4'], ConfigTree((CONF,)))}")]
    assert started("method=ig")[:2] == (99, ["twinlens: loading …", "[]"])
