#!/usr/bin/env python3
"""Make crates/pippin-models/tests/published: what tensors published checkpoints have, and what mlx-lm makes of them.

    pip install mlx-lm==0.32.2 'mlx[cpu]' numpy torch transformers==5.24.0
    tools/goldens/published.py [NAME ...]

For each dense golden model whose architecture transformers has, a model is made and saved by transformers, which gives the names and shapes that
checkpoints are published with. Their values are made up (`weights.uniform` of the tensor's name). mlx-lm's `sanitize` makes of them what its own
parameters are; of each, its shape and a checksum are stored:

    sum over i of bits[i] * (2 i + 1), modulo 2^64, where bits[i] are those of element i as f32

Models that transformers cannot make are told and left out; so is `falcon_h1`, of whose factors mlx-lm leaves out some (those on keys and biases).
"""

import argparse
import contextlib
import io
import json
import pathlib
import tempfile
import warnings

import mlx.core as mx
import numpy as np
import torch
import transformers
from mlx_lm.utils import _get_classes
from safetensors import safe_open

import weights
from configs import MODELS
from oracle import oracle_config

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates" / "pippin-models" / "tests" / "published"

NOT_AS_MLX_LM = ("falcon_h1",)


def published(config):
    """Names and shapes of the tensors that transformers saves."""
    # Tokens that a default names may not be in so small a vocabulary.
    own = transformers.AutoConfig.for_model(**config | {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None})
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_config(own, dtype=torch.float32)
        model.save_pretrained(folder)
        shapes = {}
        for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
            with safe_open(file, "np") as tensors:
                shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}
    return shapes


def checksum(values):
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        factors = np.arange(bits.size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        return int((bits * factors).sum(dtype=np.uint64))


def sanitized(config, shapes):
    """What mlx-lm makes of such a checkpoint: shapes and checksums by name."""
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    given = {name: mx.array(weights.uniform("published", name, int(np.prod(shape))).reshape(shape)) for name, shape in shapes.items()}
    made = model.sanitize(given) if hasattr(model, "sanitize") else given
    model.load_weights(list(made.items()), strict=True)
    return {name: [list(value.shape), f"{checksum(np.array(value)):016x}"] for name, value in sorted(made.items())}


def main():
    parser = argparse.ArgumentParser(description="Make the files of crates/pippin-models/tests/published.")
    parser.add_argument("names", nargs="*", help="golden models; by default the one of each family that is named after it")
    names = parser.parse_args().names
    mx.set_default_device(mx.cpu)
    transformers.logging.set_verbosity_error()
    FOLDER.mkdir(exist_ok=True)
    for name, config, _ in MODELS:
        if name in NOT_AS_MLX_LM or (name not in names if names else "-" in name):
            continue
        try:
            shapes = published(config)
            expected = sanitized(oracle_config(config), shapes)
        except Exception as error:  # whatever transformers or mlx-lm has against it
            print(f"{name}: left out: {type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}", flush=True)
            continue
        (FOLDER / f"{name}.json").write_text(json.dumps({"config": config, "tensors": shapes, "expected": expected}) + "\n")
        print(f"{name}: {len(shapes)} tensors become {len(expected)}", flush=True)


if __name__ == "__main__":
    main()
