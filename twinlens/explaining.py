"""Explanation of a model's predictions in one call: the stages of a run over the model and texts that are passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twinlens.answers import Answer
from twinlens.attribution.errors import UserError
from twinlens.given_rows import LABEL, rows_of, text_columns, write_table, write_texts
from twinlens.hosted_runs import DEVICES, override, run_here
from twinlens.method_names import class_of, name_of
from twinlens.models.given_models import HOOKS, require_givable, serving
from twinlens.notebook_cells import in_notebook
from twinlens.runs import Run

WITHOUT_TRAIN, WITH_TRAIN = ("ig",), ("ig", "influence_ekfac")
"""Methods where none are named."""
CLASSIFIER = "ForSequenceClassification"
LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel")
NEURON_TEXTS = 50
"""Texts of each listed neuron, as data=texts keeps them."""


def explain(
    model: Any,
    tokenizer: Any = None,
    texts: Any = None,
    *,
    train: Any = None,
    methods: Sequence[Any] | Mapping[str, Any] | None = None,
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
        methods: names (`conf/method/`), configured methods, or both; a dict gives names of your own. None: `ig`, and
            with `train` `influence_ekfac`.
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
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    kind = _kind_of(model)
    named = _named(methods, train is not None)
    _require_train(named, train)
    if folder is not None and (Path(folder) / "config.yaml").is_file():
        raise UserError(
            f"folder={folder} holds a run already, whose lists would stand among the new ones; expected a folder of "
            "its own: choose another one, or read what is there with twinlens.open."
        )
    held = None if folder is not None else TemporaryDirectory(prefix="twinlens-")
    try:
        run_folder = Path(str(folder)) if held is None else Path(held.name) / "run"
        inputs = run_folder / "given"
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
        if tokenizer is not None:
            place = where if given else inputs / "tokenizer"
            tokenizer.save_pretrained(place)
            if not given:
                overrides.append(override("model.tokenizer_path", place.as_posix()))
        bars = progress and in_notebook() and find_spec("ipywidgets") is not None
        write = _classifier_data if kind == "classifier" else _text_data
        overrides += write(model, texts, train, inputs, generate)
        if kind == "classifier" and train is not None and any(_lists_neurons(method) for method in named.values()):
            overrides.append(override("neuron_texts", NEURON_TEXTS))
        notes: list[str] = []
        if not given:
            log = run_here(overrides, named, settings, run_folder, quiet, bars)
        else:
            require_givable(model)
            _require_tokenizer(tokenizer)
            _write_config(model, where)
            notes = _told_hooks(model)
            with serving(where, model):
                log = run_here(overrides, named, settings, run_folder, quiet, bars)
    except BaseException:
        if held is not None:
            held.cleanup()
        raise
    return Answer(Run(run_folder, held), notes, log)


def _kind_of(model: Any) -> str:
    """`classifier` or `language model`, by the name of the class.

    Raises:
        UserError: neither.
    """
    if isinstance(model, str | Path):
        from twinlens.models.backbone import load_config

        names = load_config(str(model)).architectures or []
    else:
        from transformers import PreTrainedModel

        if not isinstance(model, PreTrainedModel):
            raise UserError(
                f"the model is a {type(model).__name__}; expected a model of transformers or the folder of one: pass "
                "that (of an adapter merge_and_unload(), or its folder), or use twinlens.Task for a module of your own."
            )
        names = [type(model).__name__]
    if any(CLASSIFIER in name for name in names):
        return "classifier"
    if any(name.endswith(LANGUAGE_MODELS) for name in names):
        return "language model"
    raise UserError(
        f"the model is a {', '.join(names) or 'model without a head'}; expected …ForCausalLM or …{CLASSIFIER}, which "
        "have a prediction to explain: load it with AutoModelForCausalLM or AutoModelForSequenceClassification."
    )


def _named(methods: Sequence[Any] | Mapping[str, Any] | None, with_train: bool) -> dict[str, Any]:
    """Methods by name; a name alone stands for itself.

    Raises:
        UserError: none, or one of them twice.
    """
    if methods is None:
        methods = WITH_TRAIN if with_train else WITHOUT_TRAIN
    if isinstance(methods, str):
        methods = [methods]
    if isinstance(methods, Mapping):
        found = {str(name): method for name, method in methods.items()}
    else:
        names = [method if isinstance(method, str) else name_of(method) for method in methods]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(
                f"methods names {twice[0]} more than once; expected a name for each: pass a dict such as "
                f"{{'{twice[0]}': …, 'my_{twice[0]}': …}}."
            )
        found = dict(zip(names, methods, strict=True))
    if not found:
        raise UserError("methods=[] explains nothing; expected at least one: pass methods=['ig'], or leave it out.")
    return found


def _lists_neurons(method: Any) -> bool:
    return bool(class_of(method).lens == "neuron")


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


def _require_tokenizer(tokenizer: Any) -> None:
    if tokenizer is None:
        raise UserError(
            "explain was given a model without its tokenizer; expected both, or the folder that holds both: write "
            "twinlens.explain(model, tokenizer, texts)."
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


def _text_data(model: Any, texts: Any, train: Any, inputs: Path, generate: int) -> list[str]:
    """Files and settings of data=texts."""
    queries = rows_of(texts, "texts")
    found = ["data=texts", override("data.queries", write_texts(inputs / "queries.jsonl", queries, is_query=True))]
    if not all(row.get("completion") for row in queries):
        found.append(override("data.generate", generate))
    if train is not None:
        place = str(train)
        if not isinstance(train, str | Path):
            place = write_texts(inputs / "train.jsonl", rows_of(train, "train"), is_query=False)
        found.append(override("data.train", place))
    return found


def _classifier_data(model: Any, texts: Any, train: Any, inputs: Path, generate: int) -> list[str]:
    """Files and settings of data=table."""
    if isinstance(model, str | Path):
        from twinlens.models.backbone import load_config

        config = load_config(str(model))
    else:
        config = model.config
    classes = [str(name) for _, name in sorted((config.id2label or {}).items())]
    queries = rows_of(texts, "texts")
    columns = text_columns(queries)
    path = {"test": write_table(inputs / "test.jsonl", queries, columns, classes, "texts")}
    if train is not None:
        rows = rows_of(train, "train")
        path["train"] = write_table(inputs / "train.jsonl", rows, columns, classes, "train")
    labelled = train is not None or any(row.get(LABEL) is not None for row in queries)
    label = override("data.label", LABEL if labelled else None)
    return ["data=table", override("data.path", path), override("data.text", columns), label]


def _write_config(model: Any, where: Path) -> None:
    """Configuration of the model, with the class that it is."""
    where.mkdir(parents=True, exist_ok=True)
    before = model.config.architectures
    try:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(where)
    finally:
        model.config.architectures = before


def _told_hooks(model: Any) -> list[str]:
    """A sentence on hooks that the twin does not have."""
    n = sum(len(vars(part)[name]) for part in model.modules() for name in HOOKS[:2] if name in vars(part))
    return [f"{n} hooks of the model were left out: the model is explained as it is without them"] if n else []
