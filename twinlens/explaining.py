"""Explanation of a model's predictions in one call: the stages of a run over the model and texts that are passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twinlens.answers import Answer
from twinlens.attribution.errors import UserError
from twinlens.callbacks.store.failures import writing
from twinlens.given_inputs import (
    at_home,
    classifier_data,
    in_their_words,
    kind_of,
    require_tokenizer,
    text_data,
    told_hooks,
    write_config,
)
from twinlens.hosted_runs import DEVICES, override, run_here
from twinlens.method_names import class_of, configured, name_of, require_name
from twinlens.models.given_models import require_givable, serving
from twinlens.notebook_cells import in_notebook
from twinlens.runs import Run

WITHOUT_TRAIN, WITH_TRAIN = ("ig",), ("ig", "influence_ekfac")
"""Methods where none are named."""
LOST = {
    "cut_text": "longer than the model reads at once (data.max_length), and cut",
    "cut_prompt": "with a prompt longer than the model reads at once (data.max_length), and cut",
    "empty_field": "with an empty column",
}
"""Numbers of a run's data → what is not read as it was passed."""
NEURON_TEXTS = 50
"""Texts of each listed neuron, as data=texts keeps them."""


def explain(
    model: Any,
    tokenizer: Any = None,
    texts: Any = None,
    *,
    train: Any = None,
    methods: Any = None,
    explain: Any = "predicted",
    explain_against: Any = None,
    generate: int = 1,
    device: str | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    store: str | Path | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    quiet: bool = True,
    progress: bool = True,
) -> Answer:
    """Say which training instances and which neurons a model's predictions come from.

    It is a run with `fit=false`: the numbers are those of the command line. The model is read through a twin over the
    same weights (`twinlens.models.given_models`), so that it stays as it is; its own hooks are not part of what is
    explained.

    Args:
        model: a …ForCausalLM or …ForSequenceClassification of transformers, or the folder or hub id of one.
        tokenizer: of the model; None where `model` is a folder that has it.
        texts: what is explained: a text, a dict, a list of these, a Dataset or a DataLoader. Dicts for a language
            model have `prompt`, and perhaps `completion` and `foil`; for a classifier text columns, perhaps `label`.
        train: what the instance methods search, in the same forms, a classifier's with `label`; or for a language model
            a file, folder or dataset on the hub. None: no instance method.
        methods: names (`conf/method/`), configured methods, or both, one or several; a dict gives names of your own.
            None: `ig`, and with `train` `influence_ekfac`.
        explain: as in a run: `predicted`, `gold`, a class or a token; or a dict with a target for each lens.
        explain_against: as in a run; of dicts with `foil` "foil".
        generate: tokens that a language model goes on with where a text has no completion.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; None: where the model is, of a folder a GPU where there is one.
        seed: of the run.
        folder: where the run's files are left; None: they go with the answer.
        store: where finished stages are kept and found again; None: `store` below the run's files.
        settings: any other keys of a run, e.g. {"memory_budget": "1GiB"} or ["method.ig.n_steps=10"].
        quiet: nothing is printed; `answer.log` has it.
        progress: in a notebook with ipywidgets every pass shows a moving bar; elsewhere it changes nothing.

    Returns:
        `.show()`, `.instances.to_pandas()`, `.neurons[i]`, and `.run` with all files.

    Raises:
        UserError: anything the caller can mend, in one sentence.

    Example:
        >>> import twinlens
        >>> answer = twinlens.explain("models/facts", None, "The capital of France is", methods=["logprob_increase"])
        >>> answer.neurons[0].site
        'ffn'
    """
    if texts is None:
        raise UserError(
            "explain was given no texts; expected what is to be explained as third argument: write "
            "twinlens.explain(model, tokenizer, 'Once upon a time')."
        )
    model = at_home(getattr(model, "_orig_mod", model))  # of torch.compile
    train, folder, store = at_home(train), at_home(folder), at_home(store)
    kind = kind_of(model)
    named = _named(methods, train is not None)
    _require_train(named, train)
    require_tokenizer(tokenizer, given=not isinstance(model, str | Path))
    asked = _settings(settings)
    for name, place in (("folder", folder), ("store", store)):
        if place is not None and not _can_be_folder(place):
            raise UserError(f"{name}={place!r:.60} is no folder; expected its path: write {name}='outputs/mine'.")
    if folder is not None and (Path(folder) / "config.yaml").is_file():
        raise UserError(
            f"folder={folder} holds a run already, whose lists would stand among the new ones; expected a folder of "
            "its own: choose another one, or read what is there with twinlens.open."
        )
    held = None if folder is not None else TemporaryDirectory(prefix="twinlens-")
    run_folder = Path(str(folder)) if held is None else Path(held.name) / "run"
    inputs, notes = run_folder / "given", list[str]()
    try:
        given = not isinstance(model, str | Path)
        where = inputs / "model" if given else Path(model)
        overrides = [
            override("model", "local", quoted=False),
            override("model.path", where.as_posix() if given else str(model)),
            "fit=false",
            "evaluation=[]",
            "logger=none",
            override("seed", seed),
            override("explain", explain),
            override("explain_against", explain_against),
            override("paths.store", Path(run_folder / "store" if store is None else store).as_posix()),
            *_on_device(model, device),
        ]
        bars = progress and in_notebook() and find_spec("ipywidgets") is not None
        write = classifier_data if kind == "classifier" else text_data
        if given:
            require_givable(model)
        with writing(run_folder, "folder"):
            if tokenizer is not None:
                place = where if given else inputs / "tokenizer"
                tokenizer.save_pretrained(place)
                if not given:
                    overrides.append(override("model.tokenizer_path", place.as_posix()))
            if given:
                write_config(model, where)
                notes += told_hooks(model)
            more, said = write(model, texts, train, inputs, generate, explain_against)
        overrides, notes = [*overrides, *more], [*notes, *said]
        _refuse_set(asked, overrides)
        if kind == "classifier" and train is not None and any(_lists_neurons(method) for method in named.values()):
            overrides.append(override("neuron_texts", NEURON_TEXTS))
        with serving(where, model) if given else nullcontext():
            log = run_here(overrides, named, asked, run_folder, quiet, bars)
    except BaseException as error:
        if held is not None:
            held.cleanup()
        if isinstance(error, UserError):
            raise UserError(in_their_words(str(error), inputs)) from error.__cause__
        raise
    run = Run(run_folder, held)
    for key, what in LOST.items():
        if n := int(run.metrics.get(f"data/{key}", 0)):
            notes.append(f"{n} text{'s' * (n > 1)} {what}; answer.log says which")
    told = "has no list of the explained texts; its files are in scores/ of the run"
    notes += [f"{name} {told}" for name in named if name not in run.scores]
    return Answer(run, notes, log)


def _named(methods: Any, with_train: bool) -> dict[str, Any]:
    """Methods by name; a name alone stands for itself.

    Raises:
        UserError: none, or one of them twice.
    """
    if methods is None:
        methods = WITH_TRAIN if with_train else WITHOUT_TRAIN
    if isinstance(methods, Mapping):
        found = {require_name(name): method for name, method in methods.items()}
    else:
        several = isinstance(methods, Iterable) and not isinstance(methods, str | type)
        each = list(methods) if several else [methods]
        names = [method if isinstance(method, str) else name_of(method) for method in each]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(
                f"methods names {twice[0]} more than once; expected a name for each: pass a dict such as "
                f"{{'{twice[0]}': …, 'my_{twice[0]}': …}}."
            )
        found = dict(zip(names, each, strict=True))
    if not found:
        raise UserError("methods=[] explains nothing; expected at least one: pass methods=['ig'], or leave it out.")
    return found


def _can_be_folder(place: Any) -> bool:
    """Whether it is a path, and neither it nor what it lies in is a file."""
    if not isinstance(place, str | PathLike):
        return False
    path = Path(place)
    return next((part.is_dir() for part in (path, *path.parents) if part.exists()), True)


def _settings(settings: Any) -> Mapping[str, Any] | Sequence[str]:
    """Settings as they are given, one alone as a list of it.

    Raises:
        UserError: neither keys with values nor texts.
    """
    if settings is None or isinstance(settings, Mapping):
        return settings or {}
    given = [settings] if isinstance(settings, str) else settings
    each = list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(one, str) and not one.startswith("-") for one in each):
        raise UserError(
            f"settings={settings!r:.80} is no settings; expected keys with values or texts: pass "
            "{'memory_budget': '1GiB'} or ['method.ig.n_steps=10']."
        )
    return each


def _refuse_set(settings: Mapping[str, Any] | Sequence[str], overrides: Sequence[str]) -> None:
    """Refuse settings of keys that are arguments of `explain`, or that make something else of it.

    Raises:
        UserError: naming the first.
    """
    own = {each.partition("=")[0] for each in overrides} - {"evaluation", "logger"} | {
        "method",
        "plan",
        "report.compare",
    }
    keys = [one.partition("=")[0].lstrip("+~") for one in settings]
    taken = next((key for key in keys if key in own or key.startswith("hydra.")), None)
    if taken is not None:
        raise UserError(
            f"settings names {taken}, which explain sets itself; expected other keys of a run: leave it out, or use "
            "the argument of explain that says it (docs/python.md)."
        )


def _lists_neurons(method: Any) -> bool:
    """Whether a run would search texts for the neurons of its lists."""
    from twinlens.callbacks.attribute.neuron_texts import lists_neurons

    return bool(lists_neurons(configured(method)))


def _require_train(methods: Mapping[str, Any], train: Any) -> None:
    """Refuse methods that search train rows where there are none.

    Raises:
        UserError: naming the method.
    """
    from twinlens.callbacks.run.parts import needs_train

    for name, method in methods.items():
        asks = class_of(method).lens == "instance" if isinstance(method, str) else needs_train(method)
        if train is None and asks:
            raise UserError(
                f"the method {name} searches training instances, and explain was given none; expected the texts that "
                "the model learned from: pass train=[…], or leave the method out."
            )


def _on_device(model: Any, device: str | None) -> list[str]:
    """Settings of the trainer for a device.

    Raises:
        UserError: no such device here.
    """
    import torch

    if device is None:
        if isinstance(model, str | Path):
            return []
        weight = next(iter(model.parameters()), None)
        device = "cpu" if weight is None or weight.is_meta else str(weight.device)
    kind, _, number = str(device).partition(":")
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(kind, 0)
    if (number and not number.isdigit()) or int(number or 0) >= there:
        known = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
        known += ["mps"] if torch.backends.mps.is_available() else []
        raise UserError(
            f"device={device} is not on this machine; expected one of {', '.join(known)}: pass device={known[-1]!r}."
        )
    found = [override("trainer.accelerator", DEVICES[kind])]
    return found if kind != "cuda" else [*found, f"trainer.devices=[{int(number or 0)}]"]
