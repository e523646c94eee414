#!/usr/bin/env python3
"""Make the golden files of crates/pippin-models/tests/goldens with mlx-lm on the CPU.

    pip install mlx-lm==0.32.2 'mlx[cpu]' numpy
    tools/goldens/generate.py [NAME ...]

A golden file holds a tiny model's `config.json`, the salt its weights come from (see weights.py), prompts, and what mlx-lm computes:
the logits of every position of the first prompt, 64 greedy tokens after it with the logits of some of those steps, and the last
logits of each other prompt; and, for some models, changes of the configuration that matter. Logits are hexadecimal f32 bit patterns, eight digits a value.

The salt is the first for which no greedy choice is close: the winning logit leads by at least MARGIN at every step, so that
rounding cannot change the tokens, and at least DISTINCT different tokens appear, so that the test means something. Neither is any
router's choice close: the last chosen expert leads the first rejected one by at least LEAD, relative to the largest value that takes
part, at every position; of the keys that an index chooses, of which there are many more, by KEY_LEAD. All tokens at once and without a cache give the same logits to SAME.
"""

import argparse
import collections
import json
import pathlib
import tempfile
from importlib.metadata import version

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.deepseek_v41 import HyperConnection
from mlx_lm.models.recurrent_gemma import RGLRU
from mlx_lm.models.recurrent_gemma import Conv1d as GriffinConv1d
from mlx_lm.utils import _get_classes, load_model

import weights
from configs import MATTERS, MODELS
from oracle import Routers, construction, oracle_config, patch, stacked, stored_name

STEPS = 64
LOGITS_AT = (1, 8, 32, 63)
PROMPT_LENGTHS = (24, 1, 9, 17)
MARGIN = 0.02
DISTINCT = 12
LEAD = 5e-4
KEY_LEAD = 2e-5
SAME = 1e-4

# Models whose published checkpoints have no matrix of the output of their own, which mlx-lm sees by its absence.
TIED = ("gemma3", "gemma3_text", "recurrent_gemma")
# Routers that hold their matrix themselves; every family has a class of its own.
GATES = ("MoEGate", "BailingGate", "Dots1TopkRouter", "Router")
# Quantized matrices that are modules from the beginning.
PACKED = ("HadamardQuantizedLinear", "HadamardQuantizedEmbedding")
# Without a cache, mlx-lm's layers that share others' keys and values compute their own instead.
CACHE_IS_PART = ("gemma3n",)

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates" / "pippin-models" / "tests" / "goldens"


def prompts(name, vocab):
    return [(weights.stream("prompt", f"{name}/{i}", n) % np.uint64(vocab)).tolist() for i, n in enumerate(PROMPT_LENGTHS)]


def quantization_of(config, path, cols):
    """How a matrix is quantized: as the entry of its path says, in which mlx-lm's defaults count, or else as all are."""
    top = config.get("quantization")
    if not top and (other := config.get("text_config", {}).get("quantization_config")):
        top = {"group_size": 32, "bits": int(other["quant_method"][-1]), "mode": other["quant_method"]}
    own = top.get(path, top) if top else False
    own = own and {"group_size": 64, "bits": 4, "mode": "affine"} | own
    return own if own and cols % own["group_size"] == 0 else None


def own_arrays(module):
    return ((key, value) for key, value in module.items() if isinstance(value, mx.array) and not key.startswith("_"))


def made(config, salt, path, key, module, shape):
    """What a module's parameter is stored as: one tensor, or those of a quantized matrix."""
    name = stored_name(config, f"{path}.{key}")
    if type(module).__name__ in PACKED and key != "signs":
        if key != "weight":
            return {}
        parts = weights.quantized(salt, path, (shape[0], shape[1] * 32 // module.bits), module.bits, module.group_size)
        return dict(zip(("weight", "scales", "biases"), parts))
    if key == "weight" and hasattr(module, "to_quantized"):
        if not (spec := quantization_of(config, path, shape[-1])):
            return {key: weights.matrix(salt, name, shape)}
        mode, bits, group_size = spec["mode"], spec["bits"], spec["group_size"]
        if mode == "affine":
            parts = weights.quantized(salt, path, shape, bits, group_size)
        else:
            parts = weights.quantized_minifloat(salt, path, shape, mode, bits, group_size)
        factors = {"global_scale": weights.global_scales(salt, path, shape[0])} if spec.get("global_scale") else {}
        return dict(zip(("weight", "scales", "biases"), parts)) | factors
    if type(module).__name__ in GATES and key == "weight" or isinstance(module, RGLRU) and key.endswith("_weight"):
        return {key: weights.matrix(salt, name, shape)}
    if isinstance(module, HyperConnection) and key in ("fn", "base"):
        # A linear layer in Pippin.
        name = f"{path}.fn"
        return {key: weights.matrix(salt, f"{name}.weight", shape) if key == "fn" else weights.vector(salt, f"{name}.bias", shape)}
    if isinstance(module, (nn.Conv1d, GriffinConv1d)) and key == "weight":
        return {key: weights.convolution(salt, name, shape)}
    return {key: weights.vector(salt, name, shape)}


def make_tensors(stored, dtype, salt):
    """Every tensor of the checkpoint, by the names that mlx-lm's own module tree has; weights follow from those of the checkpoint."""
    config = oracle_config(stored)
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    if config["model_type"] in TIED:
        getattr(model, "language_model", model).pop("lm_head")
    tensors, modules = {}, dict(model.named_modules())
    stacks = collections.Counter(stack[0] for path in modules if (stack := stacked(path)))
    for own_path, module in modules.items():
        path = stored_name(stored, own_path)
        for key, value in own_arrays(module):
            if stack := stacked(path):
                whole = made(config, salt, stack[0], key, module, (stacks[stack[0]], *value.shape))
                parts = {name: part[stack[1]] for name, part in whole.items()}
            else:
                parts = made(config, salt, path, key, module, value.shape)
            tensors |= {f"{own_path}.{name}": part for name, part in parts.items()}
    arrays = {name: mx.array(value) for name, value in tensors.items()}
    if dtype == "BF16":
        arrays = {name: a if a.dtype in (mx.uint32, mx.uint8) else a.astype(mx.bfloat16) for name, a in arrays.items()}
    expected = {name for name, _ in tree_flatten(model.parameters())}
    made_of = (".scales", ".biases", ".global_scale")
    plain, expected = ({name for name in names if not name.endswith(made_of)} for names in (arrays, expected))
    assert plain == expected, plain ^ expected
    return arrays


def load(config, dtype, salt):
    """Through mlx-lm's own loader, from a folder as published ones are."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "config.json").write_text(json.dumps(oracle_config(config)))
        mx.save_safetensors(str(folder / "model.safetensors"), make_tensors(config, dtype, salt))
        with construction(config):
            model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    patch(model, config)
    return model


def forward(model, tokens, cache):
    logits = np.array(model(mx.array([tokens]), cache=cache)[0])
    assert logits.dtype == np.float32
    return logits


def margin(row):
    second, first = np.partition(row, -2)[-2:]
    return float(first - second)


def run(model, prompt):
    """The prompt's logits, the greedy tokens that follow, the logits they were chosen from, and the smallest margin."""
    cache = make_prompt_cache(model)
    rows = forward(model, prompt, cache)
    row, tokens, chosen = rows[-1], [], []
    for _ in range(STEPS):
        tokens.append(int(row.argmax()))
        chosen.append(row)
        if margin(row) < MARGIN:
            return None
        row = forward(model, tokens[-1:], cache)[-1]
    if len(set(tokens)) < DISTINCT:
        return None
    return rows, tokens, chosen


def hexadecimal(row):
    return "".join(f"{bits:08x}" for bits in row.view(np.uint32))


def whole_differs(model, config, result, prompt):
    """How far the logits are from those of all tokens at once, without a cache."""
    if config["model_type"] in CACHE_IS_PART:
        cache = make_prompt_cache(model)
    elif (config.get("rope_scaling") or {}).get("type") == "dynamic":
        return 0.0  # rotates by how many tokens there are
    else:
        cache = None
    rows, tokens, chosen = result
    expected = np.concatenate([rows[:-1], chosen])
    return float(np.abs(forward(model, prompt + tokens[:-1], cache) - expected).max())


def golden(name, config, dtype):
    first, *others = prompts(name, (config | config.get("text_config", {}))["vocab_size"])
    for salt in range(10_000):
        model = load(config, dtype, salt)
        routers = Routers(3 if config["model_type"] == "deepseek_v41" else 4)
        with routers.watch():
            if (result := run(model, first)) is None:
                continue
            lasts = [forward(model, p, make_prompt_cache(model))[-1] for p in others]
        if routers.lead >= LEAD and routers.key_lead >= KEY_LEAD:
            break
    else:
        raise SystemExit(f"{name}: no salt gives clear greedy choices")
    rows, tokens, chosen = result
    differs = whole_differs(model, config, result, first)
    assert differs < SAME, f"{name}: all tokens at once give logits that differ by {differs}"
    return {
        "oracle": f"mlx-lm {version('mlx-lm')}, mlx {version('mlx')}, CPU, f32",
        "config": config,
        "dtype": dtype,
        "salt": salt,
        "prompt": first,
        "logits": [hexadecimal(row) for row in rows],
        "greedy": tokens,
        "greedy_logits": {str(step): hexadecimal(chosen[step]) for step in LOGITS_AT},
        "others": [{"prompt": p, "last": hexadecimal(last)} for p, last in zip(others, lasts)],
    } | ({"matters": MATTERS[name]} if name in MATTERS else {})


def main():
    parser = argparse.ArgumentParser(description="Make the golden files of crates/pippin-models/tests/goldens.")
    parser.add_argument("names", nargs="*", help="models to make; all by default")
    names = parser.parse_args().names
    mx.set_default_device(mx.cpu)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, config, dtype in MODELS:
        if names and name not in names:
            continue
        result = golden(name, config, dtype)
        text = json.dumps(result, indent=1)
        (FOLDER / f"{name}.json").write_text(text + "\n")
        print(f"{name}: salt {result['salt']}, {len(set(result['greedy']))} distinct tokens, {len(text)} bytes", flush=True)


if __name__ == "__main__":
    main()
