"""Adapters that PEFT made: loaded onto their base, merged into its weights or kept as modules, and saved.

Kept adapters are modules of the transformers model itself (`….q_proj.lora_A.default` beside `….q_proj.base_layer`), not
of a wrapper around it, so that its parts keep their names and everything that looks inside finds them.
"""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.models.adapter_files import BASE, PREFIX, WEIGHTS, Adapter
from twinlens.models.encoders import refuse_adapter
from twinlens.models.loaded_weights import refuse_odd_numbers

AdapterUse = Literal["keep", "merge", "lora"]
"""`keep`: low-rank matrices stay linear layers of their own; `merge`: they are added to the base's weights; `lora`: as
`keep`, and a checkpoint without an adapter gets new ones, which alone are trained."""
RANK, ALPHA = 8, 16
"""Of new matrices: PEFT's default rank, and the usual scale of twice the rank over the rank."""
NAME = "default"
"""PEFT's name of the only adapter."""
HEADS = ("score", "classifier", "lm_head")
"""Parts of an adapter that the model may lack: heads for another task."""
CHANGE_NO_WEIGHTS = frozenset(
    {
        "ADAPTION_PROMPT",
        "CARTRIDGE",
        "CPT",
        "MULTITASK_PROMPT_TUNING",
        "POLY",
        "PREFIX_TUNING",
        "PROMPT_TUNING",
        "P_TUNING",
        "XLORA",
    }
)
"""Kinds of virtual tokens, and of mixtures that depend on the input."""


def require_usable(adapter: Adapter, use: AdapterUse) -> None:
    """Refuse an adapter that cannot be loaded that way; reads no weights.

    Raises:
        UserError: PEFT is not there, the adapter is of a kind that changes no weights, or is to be kept and no LoRA.
    """
    kind = adapter.kind
    if kind in CHANGE_NO_WEIGHTS:
        raise UserError(
            f"the adapter in model.path={adapter.path} is of the kind {kind}, which changes no weights of its base; "
            "expected LoRA, or another kind that can be merged into them: choose another adapter."
        )
    if use != "merge" and kind != "LORA":
        raise UserError(
            f"the adapter in model.path={adapter.path} is of the kind {kind}, but only LoRA's matrices are linear "
            "layers that can be kept; expected LORA: set model.adapter=merge."
        )
    peft = _peft(adapter)
    if kind not in {known.value for known in peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING}:
        raise UserError(
            f"the adapter in model.path={adapter.path} is of the kind {kind}, which PEFT {peft.__version__} does not "
            "know; expected LORA or another of its kinds: install the PEFT that wrote it."
        )


def with_adapter(lm: Any, adapter: Adapter, use: AdapterUse) -> Any:
    """The model with its adapter's weights, and with the modules that were trained beside it in the base's place.

    Args:
        lm: the base with its head, changed in place.
        adapter: fits the base.
        use: see `AdapterUse`. With `keep` the low-rank matrices, the modules trained beside them and a classification
            head require gradients, everything else does not.

    Raises:
        UserError: an adapter that lacks weights, has others, or is to be kept and changes more than linear layers.
    """
    refuse_adapter(lm, adapter.path)
    require_usable(adapter, use)
    rows = adapter.shapes.get(f"{PREFIX}{_name_of(lm, lm.get_input_embeddings())}.weight", (0,))[0]
    if rows and rows != lm.get_input_embeddings().num_embeddings:  # tokens were added before the adapter was trained
        lm.resize_token_embeddings(rows, mean_resizing=False)
    wrapped = _injected(lm, adapter)
    _load(wrapped, lm, adapter)
    return _merged(wrapped, lm) if use == "merge" else _kept(lm, f"the adapter in model.path={adapter.path}")


def with_adapter_shapes(lm: Any, adapter: Adapter, use: AdapterUse) -> Any:
    """The same for a model without values (on the meta device)."""
    refuse_adapter(lm, adapter.path)
    require_usable(adapter, use)
    if use == "merge":
        return lm
    _injected(lm, adapter, init_lora_weights=False)
    return _kept(lm, f"the adapter in model.path={adapter.path}")


def with_new_lora(lm: Any, path: str | None, shapes_only: bool = False) -> Any:
    """The model with new low-rank matrices beside every linear layer below the readout, which alone are trained, with a
    classification head. Their product is zero, so that the model says what it said before.

    Raises:
        UserError: PEFT is not there, or the model is an encoder.
    """
    refuse_adapter(lm, path)
    peft = _installed(f"model.adapter=lora makes an adapter for model.path={path}")
    init = {"init_lora_weights": False} if shapes_only else {}
    settings = peft.LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=peft.utils.INCLUDE_LINEAR_LAYERS_SHORTHAND,
        exclude_modules=r"score(\..*)?" if hasattr(lm, "score") else None,  # a head is trained itself
        **init,
    )
    settings.base_model_name_or_path = path
    peft.PeftModel(lm, settings, NAME)
    return _kept(lm, f"model.path={path}")


def is_kept(lm: Any) -> bool:
    """Whether a model has adapters as modules."""
    return hasattr(lm, "peft_config")


def save_weights(lm: Any, folder: Path) -> None:
    """Write safetensors and configuration; of a model with kept adapters as `_save_kept` does."""
    if is_kept(lm):
        _save_kept(lm, folder)
    else:
        lm.save_pretrained(folder)


def _save_kept(lm: Any, folder: Path) -> None:
    """Write the low-rank matrices as PEFT does, and everything else as an ordinary checkpoint below `base/`.

    The base is part of the folder because its head and its vocabulary may not be those that it was loaded with.
    """
    low_rank, rest = {}, {}
    for name, tensor in lm.state_dict().items():
        if ".lora_A." in name or ".lora_B." in name:
            low_rank[PREFIX + name.replace(f".{NAME}.", ".")] = tensor.contiguous()
        else:
            rest[name.replace(".base_layer.", ".")] = tensor
    lm.save_pretrained(folder / BASE, state_dict=rest)
    settings = copy.deepcopy(lm.peft_config[NAME])
    settings.base_model_name_or_path, settings.inference_mode = BASE, True
    # what these say is in the base by now; PEFT wants a classifier's head in the adapter as well
    settings.modules_to_save, settings.bias, settings.init_lora_weights = None, "none", True
    head = getattr(lm, "score", None)
    if isinstance(head, nn.Linear):
        settings.modules_to_save = ["score"]
        low_rank[f"{PREFIX}score.weight"] = head.weight.detach()
    else:
        settings.task_type = None if head is not None else settings.task_type
    settings.save_pretrained(str(folder))
    save_file(low_rank, folder / WEIGHTS, metadata={"format": "pt"})


def _injected(lm: Any, adapter: Adapter, **changes: Any) -> Any:
    """PEFT's wrapper around the model, which has the adapter's modules from then on."""
    peft = _peft(adapter)
    settings = peft.PeftConfig.from_pretrained(str(adapter.folder))
    trained = getattr(settings, "modules_to_save", None) or []
    if trained:
        left_out = _left_out(lm, adapter)
        settings.modules_to_save = [name for name in trained if name not in left_out] or None
    for name, value in changes.items():
        setattr(settings, name, value)
    # the wrappers for tasks ask for methods that a model for another task lacks; this one takes any
    return peft.PeftModel(lm, settings, NAME)


def _left_out(lm: Any, adapter: Adapter) -> list[str]:
    """Heads of the adapter for another task than the model's, or for other labels."""
    other_labels = adapter.n_outputs not in (None, lm.config.num_labels)
    return [head for head in HEADS if not hasattr(lm, head) or (head == "score" and other_labels)]


def _load(wrapped: Any, lm: Any, adapter: Adapter) -> None:
    """Put the adapter's weights in, all but those of heads that are left out."""
    peft = _peft(adapter)
    left_out = tuple(f"{PREFIX}{head}." for head in _left_out(lm, adapter))
    weights = load_file(adapter.folder / WEIGHTS)
    refuse_odd_numbers(weights.items(), f"the adapter in model.path={adapter.path}")
    found = peft.set_peft_model_state_dict(
        wrapped, {name: value for name, value in weights.items() if not name.startswith(left_out)}, NAME
    )
    own = peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING[peft.PeftType(adapter.kind)]
    missing = [name for name in found.missing_keys if own in name and f".{NAME}" in name]
    for what, names in (("lacks", missing), ("has, beyond what its settings say,", found.unexpected_keys)):
        if names:
            raise UserError(
                f"the adapter in model.path={adapter.path} {what} {len(names)} weights (first: {min(names)}); expected "
                f"those of {adapter.kind} on the base {adapter.base}: check both."
            )


def _merged(wrapped: Any, lm: Any) -> Any:
    tuned = importlib.import_module("peft.tuners.tuners_utils").BaseTunerLayer
    head, embeddings = lm.get_output_embeddings(), lm.get_input_embeddings()
    if isinstance(head, tuned) or isinstance(embeddings, tuned):
        # what is added to one must not be added to the other, which may share its weights
        plain = head.get_base_layer() if isinstance(head, tuned) else head
        if plain is not None:
            plain.weight = nn.Parameter(plain.weight.detach().clone())
    merged = wrapped.merge_and_unload()
    if is_kept(merged):
        del merged.peft_config
    _say_whether_tied(merged)
    return merged.requires_grad_(True)


def _kept(lm: Any, what: str) -> Any:
    """Refuse what is no plain LoRA of linear layers, and put trained modules into their places.

    Args:
        what: has the adapter, for messages.
    """
    layers, other = (importlib.import_module(f"peft.{name}") for name in ("tuners.lora.layer", "utils.other"))
    tuned = importlib.import_module("peft.tuners.tuners_utils").BaseTunerLayer
    lm.requires_grad_(False)
    for name, module in list(lm.named_modules()):
        if isinstance(module, other.ModulesToSaveWrapper):
            lm.set_submodule(name, module.modules_to_save[NAME].requires_grad_(True))
        elif isinstance(module, tuned | other.AuxiliaryTrainingWrapper):
            plain = type(module) is layers.Linear and not module.lora_variant and not any(module.lora_bias.values())
            if not plain or module is lm.get_output_embeddings() or name == "score":
                raise UserError(
                    f"{what} changes {name} ({type(module).__name__}) in another way "
                    "than by the product of two matrices in a linear layer below the readout; expected plain LoRA "
                    "there: set model.adapter=merge."
                )
            module.lora_A.requires_grad_(True)
            module.lora_B.requires_grad_(True)
    if isinstance(getattr(lm, "score", None), nn.Module):
        lm.score.requires_grad_(True)
    _say_whether_tied(lm)
    return lm


def _say_whether_tied(lm: Any) -> None:
    """Trained copies of embeddings or readout no longer share their weights; saved and loaded they must not either."""
    head = lm.get_output_embeddings()
    if head is not None and head.weight is not lm.get_input_embeddings().weight:
        lm.config.tie_word_embeddings = False


def _name_of(lm: nn.Module, module: nn.Module) -> str:
    return next(name for name, part in lm.named_modules() if part is module)


def _peft(adapter: Adapter) -> Any:
    return _installed(
        f"model.path={adapter.path} holds an adapter, which PEFT reads",
        ", or merge the adapter into its base elsewhere",
    )


def _installed(why: str, otherwise: str = "") -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise UserError(
            f"{why}, but PEFT is not installed; expected the package peft: pip install -c constraints.txt -e '.[peft]'"
            f"{otherwise}."
        ) from error


def weight_of(module: Any) -> Tensor:
    """A projection's weight as it is multiplied with: of a layer with a kept adapter, base plus low-rank product."""
    if not hasattr(module, "lora_A"):
        return module.weight
    with torch.no_grad():
        own = module.get_base_layer().weight  # a product of float32 matrices would widen a base of 16 bits
        return (own + sum(module.get_delta_weight(name) for name in module.active_adapters)).to(own.dtype)


def projection_rows(module: nn.Module) -> Tensor:
    """Weight of a projection as [inputs, outputs], whether it is a Linear or transformers' Conv1D, with its adapter."""
    weight = weight_of(module)
    return weight.T if isinstance(getattr(module, "base_layer", module), nn.Linear) else weight
