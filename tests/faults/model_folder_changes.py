"""Faults of a model folder: in weights and their files, config.json, files of the tokenizer or adapters, and beside."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

PAD, BOS, EOS, VOCABULARY = 0, 1, 2, 2048
Change = Callable[[random.Random, Path], object]
"""What a draw does to a folder."""
ROTATIONS: tuple[dict[str, Any], ...] = (
    {"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32},
    {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
     "original_max_position_embeddings": 32},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 32},
    {"rope_type": "default"}, {"rope_type": "nothing"}, {"rope_type": "dynamic"},
)  # fmt: skip


def edit_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def _set(file: str, *choices: dict[str, Any]) -> Change:
    """Entries of a JSON file: one of these sets of values."""
    return lambda rng, folder: edit_json(folder / file, rng.choice(choices))


def _weights(change: Callable[[random.Random, dict[str, torch.Tensor]], object]) -> Change:
    def write(rng: random.Random, folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(rng, weights)
        kept = {name: value.clone().contiguous() for name, value in weights.items()}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    return write


def _bytes(file: str, *changes: Callable[[random.Random, bytes], bytes]) -> Change:
    """The bytes of a file, changed in one of these ways."""

    def write(rng: random.Random, folder: Path) -> None:
        (folder / file).write_bytes(rng.choice(changes)(rng, (folder / file).read_bytes()))

    return write


def _config(*choices: dict[str, Any]) -> Change:
    return _set("config.json", *choices)


def _renamed(rng: random.Random, weights: dict[str, torch.Tensor]) -> None:
    kind = rng.randrange(5)
    for name in list(weights) if kind < 3 else [rng.choice(list(weights))]:
        new = (name.partition(".")[2], f"model.{name}", name.replace("layers", "blocks"), f"{name}_old", f"x.{name}")
        weights[new[kind] or name] = weights.pop(name)


def _retyped(rng: random.Random, weights: dict[str, torch.Tensor]) -> None:
    types = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn)
    kind = rng.choice(types)
    for name in list(weights) if rng.random() < 0.6 else [rng.choice(list(weights))]:
        weights[name] = weights[name].to(kind)


def _reshaped(rng: random.Random, weights: dict[str, torch.Tensor]) -> None:
    name = rng.choice(list(weights) + [name for name in weights if "score" in name or "emb" in name] * 3)
    weight = weights[name]
    weights[name] = rng.choice((weight[:-1], torch.cat([weight, weight[:1]]), weight.T, weight[None], weight[..., :1]))


def _odd_numbers(rng: random.Random, weights: dict[str, torch.Tensor]) -> None:
    name = rng.choice(list(weights))
    weights[name].flatten()[rng.randrange(weights[name].numel())] = rng.choice((float("nan"), float("inf"), 1e38))


def _more_weights(rng: random.Random, weights: dict[str, torch.Tensor]) -> None:
    first = next(iter(weights))
    more = ("score.bias", "lm_head.weight", "classifier.weight", "v_head.weight", f"{first}.lora_A", "model.extra",
            f"{first.partition('.')[0]}.layers.9.mlp.up_proj.weight", f"{first.partition('.')[0]}.h.9.ln_1.weight",
            "rotary_emb.inv_freq", "")  # fmt: skip
    weights[rng.choice(more)] = torch.ones(2)


def _sharded(rng: random.Random, folder: Path) -> None:
    """Two shards and their index, which may be right or wrong in many ways."""
    weights = load_file(folder / "model.safetensors")
    names = list(weights)
    half = len(names) // 2
    kind = rng.randrange(9)
    shards = {"model-00001-of-00002.safetensors": names[:half], "model-00002-of-00002.safetensors": names[half:]}
    for shard, held in shards.items():
        kept = {name: weights[name].clone() for name in held}
        if kind == 1 and shard.startswith("model-00002"):
            kept[names[0]] = weights[names[0]] + 1  # another one of that name, where the index does not look
        save_file(kept, folder / shard, metadata={"format": "pt"})
    places: dict[str, Any] = {name: shard for shard, held in shards.items() for name in held}
    if kind == 2:
        places[names[0]] = rng.choice(
            ("model-00009.safetensors", "../outside.safetensors", "", None, 3, "tokenizer.json")
        )
    elif kind == 3:
        places.pop(names[0])
    elif kind == 4:
        places[names[0]] = places[names[-1]]
    elif kind == 5:
        (folder / "model-00002-of-00002.safetensors").unlink()
    index = {"metadata": {"total_size": rng.choice((1, 10**15))}, "weight_map": places}
    text = json.dumps(index if kind != 6 else rng.choice((places, [], {"weight_map": None}, {"weight_map": [1]}, 3)))
    (folder / "model.safetensors.index.json").write_text(text[: len(text) // 2] if kind == 7 else text)
    if kind != 8:
        (folder / "model.safetensors").unlink()
    else:
        _weights(_odd_head)(rng, folder)


def _odd_head(rng: random.Random, weights: dict[str, torch.Tensor]) -> None:
    weights["score.weight"] = weights["score.weight"] + rng.choice((0.0, 1.0)) * torch.ones(1, 1)
    weights["score.weight"][0] += 0.5


def _pickled(rng: random.Random, folder: Path) -> None:
    weights: Any = load_file(folder / "model.safetensors")
    name = rng.choice(("pytorch_model.bin", "pytorch_model.bin", "model.pt", "weights.pkl", "pytorch_model-00001.bin"))
    kind = rng.randrange(6)
    if kind == 1:
        weights["epoch"] = 3
    elif kind == 2:
        weights = {"state_dict": weights}
    elif kind == 3:
        weights = torch.nn.Linear(2, 2)
    torch.save(weights, folder / name)
    if kind == 4:
        (folder / name).write_bytes(pickle.dumps(Code()))
    elif kind == 5:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    if rng.random() < 0.8:
        (folder / "model.safetensors").unlink()


class Code:
    """A pickle that runs something when it is opened."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (open, ("ran", "w"))  # type: ignore[return-value]


def _header(rng: random.Random, content: bytes) -> bytes:
    """Another header of safetensors around the same weights."""
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    name = rng.choice([name for name in entries if name != "__metadata__"])
    kind = rng.randrange(7)
    if kind == 0:
        entries[name]["data_offsets"] = rng.choice(([0, 8], [0, 10**12], [5, 1], [-4, 4]))
    elif kind == 1:
        entries[name]["dtype"] = rng.choice(("F16", "I32", "U8", "X9"))
    elif kind == 2:
        entries[name]["shape"] = rng.choice(([10**9, 10**9], [-1], [], [0], [1, *entries[name]["shape"]]))
    elif kind == 3:
        entries.pop("__metadata__", None)
    elif kind == 4:
        entries["__metadata__"] = rng.choice(({"format": "tf"}, {"format": "flax"}, {}, {"format": 3}))
    elif kind == 5:
        return rng.choice((2**40, 2**63, 0, length + 1)).to_bytes(8, "little") + content[8:]
    else:
        entries[f"{name}2"] = entries[name]
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _flipped(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(min(len(changed), rng.choice((16, 500, 10**9))))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def _no_file(*names: str) -> Change:
    """One of these files is gone, a folder, or a link to nowhere."""

    def change(rng: random.Random, folder: Path) -> None:
        file = folder / rng.choice(names)
        file.unlink(missing_ok=True)
        kind = rng.randrange(4)
        if kind == 1:
            file.mkdir()
        elif kind == 2:
            file.symlink_to("nowhere")

    return change


def _linked(rng: random.Random, folder: Path) -> None:
    """Files behind links, as the hub's cache has them."""
    for file in list(folder.iterdir()):
        target = folder.parent / "blobs" / file.name
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
        file.symlink_to(target)


def _adapter(rng: random.Random, folder: Path) -> None:
    """The model is the base of an adapter, which lies in its place."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = folder.parent / "base"
    folder.rename(base)
    model = AutoModelForSequenceClassification.from_pretrained(base)
    names = [name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    targets = [name for name in dict.fromkeys(names) if name != "score"] or ["c_attn"]
    with_score = ["score"] if rng.random() < 0.5 else None
    config = LoraConfig(
        task_type=rng.choice(("SEQ_CLS", "SEQ_CLS", "CAUSAL_LM", None)), r=2, target_modules=targets[:2],
        modules_to_save=with_score, init_lora_weights=rng.random() < 0.3,
    )  # fmt: skip
    get_peft_model(model, config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if rng.random() < 0.7:
            shutil.copyfile(base / name, folder / name)
    odd = ("base", "nowhere/at/all", "nobody/nothing", None, 3, str(folder), "")
    named = rng.choice(odd) if rng.random() < 0.3 else rng.choice((str(base), "../base"))
    edit_json(folder / "adapter_config.json", {"base_model_name_or_path": named})
    kind = rng.randrange(7)
    if kind == 0:
        file = folder / "adapter_model.safetensors"
        file.write_bytes(rng.choice((_cut, _flipped, _header))(rng, file.read_bytes()))
    elif kind == 1:
        edit_json(folder / "adapter_config.json", rng.choice(ADAPTER_SETTINGS))


ADAPTER_SETTINGS: tuple[dict[str, Any], ...] = (
    {"peft_type": "PREFIX_TUNING"}, {"peft_type": None}, {"r": 0}, {"r": "two"}, {"target_modules": ["nothing"]},
    {"target_modules": None}, {"lora_alpha": 10**9}, {"use_dora": True}, {"fan_in_fan_out": True}, {"bias": "all"},
    {"rank_pattern": {"q_proj": 3}}, {"layers_to_transform": [0]}, {"modules_to_save": ["nothing"]}, {"unknown": 1},
    {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}}, {"megatron_config": {"a": 1},
    "megatron_core": "x"},
    {"lora_dropout": 0.5}, {"use_rslora": True}, {"inference_mode": False}, {"revision": "other"},
)  # fmt: skip


def _code_beside(rng: random.Random, folder: Path) -> None:
    code = "open(MARK, 'w').close()\nclass Own: pass\n"
    (folder / "code.py").write_text(code)
    part = rng.choice(("AutoConfig", "AutoModelForSequenceClassification", "AutoModel", "AutoTokenizer"))
    file = folder / ("tokenizer_config.json" if part == "AutoTokenizer" else "config.json")
    edit_json(
        file, {"auto_map": {part: "code.Own"}, **rng.choice(({}, {"model_type": "own"}, {"tokenizer_class": "Own"}))}
    )


def _tokenizer_json(*changes: Callable[[random.Random, Any], object]) -> Change:
    """The description in tokenizer.json, changed in one of these ways."""

    def write(rng: random.Random, folder: Path) -> None:
        file = folder / "tokenizer.json"
        described = json.loads(file.read_text(encoding="utf-8"))
        rng.choice(changes)(rng, described)
        file.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")

    return write


def _put(**values: Any) -> Callable[[random.Random, Any], object]:
    return lambda rng, described: described.update(values)


def _added(content: str, number: int, **more: Any) -> Callable[[random.Random, Any], object]:
    """A token beside the vocabulary."""
    token = {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True, **more}  # fmt: skip
    return lambda rng, described: described["added_tokens"].append(token)


def _fewer_pieces(rng: random.Random, described: Any) -> None:
    vocabulary = described["model"]["vocab"]
    for name in list(vocabulary)[rng.choice((-1, -40, 10)) :]:
        vocabulary.pop(name)


def _with_template(single: str, numbers: dict[str, int]) -> Callable[[random.Random, Any], object]:
    def change(rng: random.Random, described: Any) -> None:
        parts = [
            {"Sequence": {"id": "A", "type_id": 0}} if part == "$A" else {"SpecialToken": {"id": part, "type_id": 0}}
            for part in single.split()
        ]
        special = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in numbers.items()}
        pair = [*parts, {"Sequence": {"id": "B", "type_id": 1}}]
        described["post_processor"] = {
            "type": "TemplateProcessing", "single": parts, "pair": pair, "special_tokens": special
        }  # fmt: skip

    return change


# -- changes -----------------------------------------------------------------------------------------------------------

_NAMES = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
KINDS: dict[str, Change] = {
    "missing weight": _weights(lambda rng, weights: weights.pop(rng.choice(list(weights)))),
    "missing head": _weights(lambda rng, weights: weights.pop("score.weight")),
    "no weights at all": _weights(lambda rng, weights: weights.clear()),
    "other shape": _weights(_reshaped),
    "more weights": _weights(_more_weights),
    "renamed weights": _weights(_renamed),
    "other types of numbers": _weights(_retyped),
    "odd numbers": _weights(_odd_numbers),
    "cut weights": _bytes("model.safetensors", _cut, lambda rng, content: b""),
    "flipped weights": _bytes("model.safetensors", _flipped),
    "header of weights": _bytes("model.safetensors", _header, _header, lambda rng, content: content + b"more"),
    "sharded": _sharded,
    "pickled": _pickled,
    "behind links": _linked,
    "files gone": _no_file("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    "adapter": _adapter,
    "code beside": _code_beside,
    "id2label": _config(
        {"id2label": {"0": "no", "2": "yes"}, "label2id": {"no": 0, "yes": 2}},
        {"id2label": {"1": "no", "2": "yes"}, "label2id": {"no": 1, "yes": 2}}, {"id2label": {"no": 0, "yes": 1}},
        {"id2label": {"0": "no", "1": "no"}, "label2id": {"no": 1}}, {"id2label": {"0": None, "1": "yes"}},
        {"id2label": ["no", "yes"]}, {"id2label": None}, {"id2label": {}}, {"id2label": {"0": 0, "1": 1}},
        {"id2label": {"0": "yes", "1": "no"}}, {"label2id": {"no": 1, "yes": 0}}, {"label2id": None}, {"label2id": []},
        {"id2label": {"00": "no", "1": "yes"}}, {"id2label": {"-1": "no", "0": "yes"}},
        {"id2label": {"1": "yes", "0": "no"}},
        {"id2label": {"0": "no", "1": "yes", "2": "more"}}, {"id2label": {"0": {"a": 1}, "1": "yes"}},
        {"id2label": "no"},
        {"id2label": {"0": " no", "1": "no "}}, {"id2label": {"0": "", "1": "yes"}},
        {"id2label": {"0": "\ud800", "1": "y"}},
        {"id2label": {"²": "no", "1": "yes"}}, {"id2label": {"0": "no", "1": "y" * 10_000}}, {"label2id": {"no": "0"}},
    ),
    "num_labels": _config(
        {"num_labels": 5}, {"num_labels": 2}, {"num_labels": 1}, {"num_labels": 0}, {"num_labels": -1},
        {"num_labels": "2"}, {"num_labels": 2, "id2label": None}, {"num_labels": None}, {"num_labels": 2.0},
        {**_NAMES, "num_labels": 3},
        {"num_labels": 3, "id2label": None, "label2id": None}, {"num_labels": [2]},
    ),
    "problem_type": _config(
        *({"problem_type": kind} for kind in ("regression", "multi_label_classification", "ranking", "", 3, []))
    ),
    "padding": _config(
        *({"pad_token_id": number} for number in (EOS, None, -1, VOCABULARY, 10**9, "0", [0], 5, 1.0, True, -100,
        2047)),
        {"eos_token_id": [2, 3]}, {"eos_token_id": None, "pad_token_id": None}, {"bos_token_id": None},
    ),
    "vocabulary": _config(
        *({"vocab_size": size} for size in (2047, 2049, 100, 10**7, 0, -1, "2048", 2048.0, None, 10**12))
    ),
    "sizes": _config(
        {"num_hidden_layers": 10**7}, {"n_layer": 10**7}, {"num_hidden_layers": 2, "n_layer": 2},
        {"hidden_size": 10**9},
        {"num_hidden_layers": 4, "n_layer": 4}, {"num_hidden_layers": 0, "n_layer": 0},
        {"hidden_size": 31, "n_embd": 31},
        {"num_attention_heads": 3, "n_head": 3}, {"num_attention_heads": 0, "n_head": 0}, {"num_key_value_heads": 3},
        {"hidden_size": "wide"}, {"hidden_size": -1, "n_embd": -1}, {"hidden_size": None, "n_embd": None},
        {"intermediate_size": 10**12}, {"num_hidden_layers": True}, {"head_dim": 0}, {"head_dim": 7},
        {"hidden_size": 32.5},
        {"num_attention_heads": 2, "n_head": 2}, {"num_key_value_heads": 1}, {"n_inner": 64},
        {"word_embed_proj_dim": 16},
    ),
    "positions": _config(
        *({name: size} for name in ("max_position_embeddings", "n_positions") for size in (16, 128, 0, 10**12, "64",
        None)),
        {"max_position_embeddings": 8, "seq_length": 8}, {"n_ctx": 8},
    ),
    "rotation": _config(
        *({"rope_parameters": {"rope_theta": 10_000.0, **kind}} for kind in ROTATIONS),
        *({"rope_scaling": {**kind, "type": kind["rope_type"]}} for kind in ROTATIONS), {"rope_theta": 500.0},
        {"rope_theta": 0}, {"rope_theta": "far"}, {"rope_scaling": []}, {"rope_parameters": 3},
        {"rope_parameters": None},
        {"partial_rotary_factor": 0.5}, {"rotary_pct": 0.5}, {"rope_parameters": {"rope_type": "yarn"}},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 5.0}}}, {"rotary_emb_base": 77},
    ),
    "logits": _config(
        {"final_logit_softcapping": 3.0}, {"logits_scaling": 8.0}, {"logit_scale": 0.1},
        {"attn_logit_softcapping": 2.0},
        {"embedding_multiplier": 3.0}, {"residual_multiplier": 0.3}, {"tie_word_embeddings": True},
        {"tie_word_embeddings": False}, {"tie_word_embeddings": "yes"}, {"temperature": 0.1},
        {"classifier_dropout": 0.5},
    ),
    "how it computes": _config(
        {"hidden_act": "relu", "activation_function": "relu"}, {"hidden_act": "nothing", "activation_function": "no"},
        {"hidden_act": None}, {"return_dict": False}, {"use_return_dict": False}, {"output_hidden_states": True},
        {"output_attentions": True}, {"use_cache": False}, {"is_decoder": True}, {"is_decoder": False},
        {"is_encoder_decoder": True}, {"add_cross_attention": True}, {"is_causal": False},
        {"use_bidirectional_attention": True},
        {"chunk_size_feed_forward": 2}, {"pruned_heads": {"0": [0]}}, {"torchscript": True}, {"pretraining_tp": 2},
        {"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}, {"reorder_and_upcast_attn": True},
        {"attention_bias": True}, {"mlp_bias": True}, {"attention_bias": False}, {"do_layer_norm_before": False},
        {"_remove_final_layer_norm": True}, {"enable_bias": False}, {"layer_norm_elementwise_affine": False},
        {"apply_residual_connection_post_layernorm": True}, {"slow_but_exact": True}, {"use_parallel_residual": False},
        {"sliding_window": 2}, {"sliding_window": 2, "use_sliding_window": True, "max_window_layers": 0},
        {"sliding_window": 0},
        {"layer_types": ["sliding_attention"] * 3}, {"layer_types": ["nothing"] * 3},
        {"layer_types": ["full_attention"]},
        {"rms_norm_eps": 0.1, "layer_norm_epsilon": 0.1, "layer_norm_eps": 0.1}, {"rms_norm_eps": "small"},
        {"attention_dropout": 0.9, "attn_pdrop": 0.9, "resid_pdrop": 0.9}, {"hidden_dropout": "much"},
        {"summary_type": "mean"},
        {"problem": 1, "task_specific_params": {"a": 1}}, {"layerdrop": 1.0}, {"initializer_range": "wide"},
    ),
    "what it is": _config(
        *({"architectures": [name]} for name in ("GPT2LMHeadModel", "Nothing", "GPT2ForTokenClassification", 3)),
        {"architectures": None}, {"architectures": []}, {"architectures": "LlamaForSequenceClassification"},
        {"architectures": ["LlamaForCausalLM", "LlamaForSequenceClassification"]},
        *({"model_type": name} for name in ("llama", "mistral", "gpt2", "opt", "qwen2", "bert", "mystery", None, 3,
        "", "t5")),
        {"transformers_version": "99.0"}, {"transformers_version": None}, {"text_config": {"model_type": "llama"}},
        {"torch_dtype": "float16"}, {"dtype": "bfloat16"}, {"dtype": "int3"}, {"torch_dtype": "auto"}, {"dtype": 16},
        {"dtype": "float64"}, {"base_model_tp_plan": {"x": "colwise"}}, {"name_or_path": "/etc"},
        {"_commit_hash": "abc"},
    ),
    "asks for more": _config(
        {"use_kernels": True}, {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "eager"},
        {"_attn_implementation": "flash_attention_2"}, {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}}, {"quantization_config": {}}, {"adapter": "x"},
        {"transformers_weights": "other.bin"}, {"peft_config": {"x": 1}}, {"twinlens_head": "mlp"},
        {"twinlens_head": "odd"},
        {"twinlens_input": {"template": "Text : {text}", "max_length": 9}},
        {"twinlens_input": {"template": "{nothing}"}},
        {"twinlens_input": []}, {"twinlens_input": {"max_length": "long"}}, {"twinlens_input": {"max_length": -1}},
        {"generation_config": {"a": 1}}, {"use_bfloat16": True}, {"compression_config": {"format": "dense"}},
    ),
    "config.json as a file": _bytes(
        "config.json", _cut, _flipped, lambda rng, content: b"", lambda rng, content: b"[]", lambda rng,
        content: b"null",
        lambda rng, content: b"\xef\xbb\xbf" + content, lambda rng, content: content.decode().encode("utf-16"),
        lambda rng, content: b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        lambda rng, content: content.replace(b'"vocab_size": 2048', b'"vocab_size": ' + b"9" * 5000),
        lambda rng, content: content.replace(b'"vocab_size": 2048', b'"vocab_size": NaN'),
        lambda rng, content: content[:-1] + b', "vocab_size": 2048, "vocab_size": 2049}',
        lambda rng, content: b" " * 9_000_000 + content,
    ),
    "generation_config.json": lambda rng, folder: (folder / "generation_config.json").write_text(
        rng.choice(("{}", "{", "[]", '{"do_sample": true, "temperature": 0}', '{"eos_token_id": "x"}',
        '{"max_length": 3}'))
    ),
    "tokenizer.json as a file": _bytes(
        "tokenizer.json", _cut, _flipped, lambda rng, content: b"", lambda rng, content: b"{}",
        lambda rng, content: b"\xef\xbb\xbf" + content, lambda rng, content: b"[" * 100_000,
    ),
    "tokens": _tokenizer_json(
        _added("village", VOCABULARY), _added("river", VOCABULARY + 5, special=False), _added("<mask>", VOCABULARY),
        _added("yes", 7), _added("<pad>", 3), _added("the", -1), _added("a", 2**31), _fewer_pieces,
        _put(added_tokens=[]), _put(added_tokens=None), _added("", VOCABULARY), _added("is", 4, lstrip=True,
        rstrip=True),
    ),
    "form of texts": _tokenizer_json(
        _put(truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}),
        _put(truncation={"direction": "Left", "max_length": 2, "strategy": "OnlyFirst", "stride": 0}),
        _put(padding={"strategy": {"Fixed": 20}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0,
                      "pad_type_id": 0, "pad_token": "<pad>"}),
        _put(normalizer={"type": "Lowercase"}), _put(normalizer={"type": "NFKC"}), _put(normalizer={"type": "Nothing"}),
        _put(normalizer={"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 200}),
        _put(normalizer={"type": "Replace", "pattern": {"String": "river"}, "content": "bridge"}),
        _put(normalizer={"type": "Prepend", "prepend": "the "}), _put(pre_tokenizer=None), _put(post_processor=None),
        _put(normalizer={"type": "Strip", "strip_left": True, "strip_right": True}), _put(decoder=None),
        _put(pre_tokenizer={"type": "Whitespace"}), _put(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True,
                                                                         "trim_offsets": True, "use_regex": True}),
        _put(post_processor={"type": "RobertaProcessing", "sep": ["<eos>", EOS], "cls": ["<bos>", BOS],
                             "trim_offsets": True, "add_prefix_space": True}),
        _put(post_processor={"type": "BertProcessing", "sep": ["<eos>", EOS], "cls": ["<bos>", BOS]}),
    ),
    "what is put around": _tokenizer_json(
        _with_template("<bos> $A <eos> <eos>", {"<bos>": BOS, "<eos>": EOS}), _with_template("$A <x>", {"<x>": 5000}),
        _with_template("$A <bos> $A", {"<bos>": BOS}), _with_template("<eos>", {"<eos>": EOS}), _with_template("", {}),
        _with_template(" ".join(["<bos>"] * 70) + " $A", {"<bos>": BOS}), _with_template("$A <pad>", {"<pad>": PAD}),
        _with_template("<pad> $A", {"<pad>": PAD}), _with_template("$A <nothing>", {}),
    ),
    "tokenizer_config.json": _set(
        "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"}, {"tokenizer_class": "GPT2Tokenizer"},
        {"tokenizer_class": "Nothing"}, {"tokenizer_class": "BertTokenizer"}, {"tokenizer_class": None},
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True}, {"add_bos_token": True},
        {"add_eos_token": True}, {"model_max_length": 3}, {"model_max_length": -1}, {"model_max_length": "long"},
        {"model_max_length": 10**30}, {"bos_token": None, "eos_token": None}, {"bos_token": "<new>"},
        {"pad_token": "<new>"},
        {"eos_token": "river"}, {"pad_token": "the"}, {"unk_token": None}, {"truncation_side": "left"},
        {"padding_side": "up"},
        {"padding_side": "left"}, {"split_special_tokens": True}, {"do_lower_case": True}, {"add_prefix_space": True},
        {"clean_up_tokenization_spaces": True}, {"chat_template": "{% for m in messages %}{{ m }}{% endfor %}"},
        {"chat_template": "{% broken"}, {"chat_template": 3}, {"additional_special_tokens": ["<one>", "<two>"]},
        {"extra_special_tokens": {"image_token": "<image>"}}, {"added_tokens_decoder": {"2048": {"content": "village",
         "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}}},
        {"added_tokens_decoder": {"x": 3}}, {"processor_class": "X"}, {"tokenizer_file": "/etc/passwd"},
        {"legacy": False},
        {"name_or_path": "nobody/nothing"}, {"vocab_file": "../outside"}, {"return_tensors": "pt"}, {"padding": True},
        {"add_special_tokens": False}, {"truncation": True, "max_length": 2}, {"model_input_names": ["input_ids"]},
        {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}, {"is_local": False},
        {"use_fast": False},
    ),
    "tokenizer_config.json as a file": _bytes(
        "tokenizer_config.json", _cut, _flipped, lambda rng, content: b"", lambda rng, content: b"[]"
    ),
    "other files of the tokenizer": lambda rng, folder: (
        folder / rng.choice(("special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "vocab.json",
        "merges.txt"))
    ).write_text(rng.choice(("", "{}", '{"pad_token": "<eos>"}', '{"village": 2048}', "{", "[]",
    '{"bos_token": {"content": 3}}'))),
    "files of others": lambda rng, folder: (
        folder / rng.choice(("optimizer.pt", "training_args.bin", "README.md", "tf_model.h5", "model.ckpt",
        "flax_model.msgpack",
                             "adapter_config.json", "modules.json", "preprocessor_config.json", "processor_config.json",
                             "adapter_model.safetensors", "pytorch_model.bin.index.json", "consolidated.safetensors"))
    ).write_bytes(rng.choice((b"", b"{}", b"junk", pickle.dumps(Code())))),
}  # fmt: skip
for _name, _change in KINDS.items():
    _change.__name__ = _name
CHANGES = list(KINDS.values())
