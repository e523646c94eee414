#!/usr/bin/env python3
"""Compare Pippin with itself on the golden models, with their `config.json` as it is and as transformers 5 writes it.

    pip install "mlx[cpu]" mlx-lm==0.32.2 transformers==5.24 numpy
    cargo build --release
    python tools/compare/saved_configs.py [--only PATTERN] [--pippin FILE]

Models that were trained further, or only saved again, have a `config.json` of transformers' own writing: `rope_parameters` in place of
`rope_theta`, `rope_scaling`, `rope_local_base_freq` and `partial_rotary_factor`, fields with other names, and all defaults. mlx-lm reads that for
some families only, so it is no reference here: what a model says must not depend on who wrote its configuration.

Prints a line per model, and exits with 1 if a text differs.
"""

import argparse
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "critical"
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "goldens"))

import mlx.core as mx  # noqa: E402
from transformers import AutoConfig  # noqa: E402

from configs import CONFIGS, FAMILIES  # noqa: E402
from generate import make_tensors  # noqa: E402
from oracle import oracle_config  # noqa: E402

TOKENIZER = ROOT / "models" / "pippin-nano-4bit"
VOCABULARY = 4096
PROMPT = "Hello there, how are you today? I am fine"

# Values that are not the defaults which a configuration without them would get.
MODELS = CONFIGS | FAMILIES
MODELS |= {
    f"{name}, theta": MODELS[name] | {"rope_theta": 3000.0}
    for name in ["mistral", "olmo2", "gemma2", "cohere2", "gpt_oss", "deepseek_v3", "lfm2", "qwen3_next", "recurrent_gemma"]
}
MODELS["gpt_neox, theta"] = MODELS["gpt_neox"] | {"rotary_emb_base": 3000.0, "rotary_pct": 0.5}
MODELS["phi3, partly rotated"] = MODELS["phi3"] | {"hidden_size": 128, "num_attention_heads": 4, "partial_rotary_factor": 0.75}
MODELS["qwen2, windows"] = MODELS["qwen2"] | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
MODELS["gemma3, no scaling"] = MODELS["gemma3"] | {"rope_scaling": None, "rope_theta": 3000.0, "rope_local_base_freq": 500.0}


def texts(config):
    """The configuration itself, and its part for text where it has one."""
    return [config, *([config["text_config"]] if "text_config" in config else [])]


def prepare(config):
    config = copy.deepcopy(config)
    for part in texts(config):
        if "vocab_size" in part:
            part["vocab_size"] = VOCABULARY
        # A number in what mlx-lm reads, and a flag in what transformers does.
        if part.get("attn_temperature_tuning"):
            part["attn_temperature_tuning"] = True
    return config


def saved(config, folder):
    """The configuration as transformers writes it. Quantization is not its matter."""
    AutoConfig.for_model(**copy.deepcopy(config)).save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    return written | {key: value for key, value in config.items() if key == "quantization"}


def answer(pippin, folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    command = [pippin, "run", str(folder), PROMPT, "--raw", "--temp", "0", "--exact", "--max-tokens", "40", "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode != 0:
        return done.stderr.decode().replace(str(folder), "FOLDER").strip()
    return json.loads(done.stdout)["text"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pippin", default="target/release/pippin")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only models in whose name this regular expression is found")
    arguments = parser.parse_args()

    mx.set_default_device(mx.cpu)
    differing = 0
    for name, config in MODELS.items():
        if not re.search(arguments.only, name):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            config = prepare(config)
            try:
                written = saved(config, folder / "saved")
            except ValueError as error:
                print(f"left out  {name}: {str(error).splitlines()[0][:80]}")
                continue
            for file in ["tokenizer.json", "tokenizer_config.json"]:
                shutil.copy(TOKENIZER / file, folder)
            mx.save_safetensors(str(folder / "model.safetensors"), make_tensors(oracle_config(config), "F32", 1))
            before, after = answer(arguments.pippin, folder, config), answer(arguments.pippin, folder, written)
            differing += before != after
            print("same     " if before == after else "DIFFERS  ", name, flush=True)
            if before != after:
                rotary = {key: value for part in texts(written) for key, value in part.items() if "rope" in key or "rotary" in key}
                print(f"          as it is: {before!r}\n          written:  {after!r}\n          {rotary}")
    print(f"{differing} differ")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
