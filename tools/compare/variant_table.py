"""The folders that `variants.py` compares: what is changed in each, and where Pippin is right not to do as mlx-lm does."""

import itertools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Callable

import mlx.core as mx

CONFIG, GENERATION, TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"
TOKENIZER, SPECIAL_MAP, ADDED = "tokenizer.json", "special_tokens_map.json", "added_tokens.json"
WEIGHTS, INDEX, TEMPLATE = "model.safetensors", "model.safetensors.index.json", "chat_template.jinja"


# --- Folders ------------------------------------------------------------------------------------------------------------------------------


class Folder:
    """A copy of a model's folder. Files are links to the originals until they are written."""

    def __init__(self, original: Path, path: Path):
        self.path = path
        path.mkdir(parents=True)
        for file in original.iterdir():
            try:
                os.link(file, path / file.name)
            except OSError:
                shutil.copyfile(file, path / file.name)

    def read(self, name):
        return (self.path / name).read_text(encoding="utf-8")

    def json(self, name):
        return json.loads(self.read(name)) if (self.path / name).exists() else {}

    def write(self, name, content):
        """Text, bytes, or anything else as JSON."""
        file = self.path / name
        file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content, indent=2, ensure_ascii=False)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def remove(self, *names):
        for name in names:
            (self.path / name).unlink()

    def rename(self, old, new):
        (self.path / old).rename(self.path / new)

    def tensors(self):
        return mx.load(str(self.path / WEIGHTS))

    def save(self, name, tensors, metadata={"format": "mlx"}):
        # Under another name first: the tensors may still have to be read from the file that is replaced.
        mx.save_safetensors(str(self.path / "saving.safetensors"), tensors, metadata)
        (self.path / name).unlink(missing_ok=True)
        self.rename("saving.safetensors", name)


class Absent:
    """What a field is set to in order to remove it."""

    def __repr__(self):
        return "(absent)"


ABSENT = Absent()


def set_fields(name, **fields) -> Callable[[Folder], None]:
    """Sets fields of a JSON file. Two underscores lead into an object: `model__vocab` is `vocab` in `model`."""

    def change(folder):
        content = folder.json(name)
        for path, value in fields.items():
            *parents, key = path.split("__") if not path.startswith("_") else [path]
            target = content
            for parent in parents:
                target = target[parent]
            if value is ABSENT:
                target.pop(key, None)
            else:
                target[key] = value
        folder.write(name, content)

    return change


def both(*changes) -> Callable[[Folder], None]:
    def change(folder):
        for one in changes:
            one(folder)

    return change


def write(name, content):
    return lambda folder: folder.write(name, content)


def remove(*names):
    return lambda folder: folder.remove(*names)


# --- The table ----------------------------------------------------------------------------------------------------------------------------

VARIANTS: dict[str, Callable[[Folder], None]] = {}


def variant(name, *changes):
    """Names that are there already (values too long to be shown whole) get a number."""
    name = next(n for n in itertools.chain([name], (f"{name} ({i})" for i in itertools.count(2))) if n not in VARIANTS)
    VARIANTS[name] = both(*changes)


def show(value):
    text = repr(value) if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 70 else text[:70] + "…"


def values(file, field, *alternatives, beside=None):
    """A variant for each value of a field. `beside` is what else is changed, with its words: `("words", change)`."""
    words, change = beside or ("", lambda folder: None)
    for value in alternatives:
        variant(f"{file} {field}={show(value)}{words and ', '}{words}", change, set_fields(file, **{field: value}))


variant("unchanged")

# Syntax. Each of these is done to each file.


def second_key(text):
    """The first plain value of the file once more, in front and as an object: the last one counts."""
    key = re.search(r'"([^"]+)": ("[^"]*"|[\d.]+|null|true|false)', text)[1]
    return text.replace("{", '{"%s": {"no": "sense"}, ' % key, 1)


SYNTAX = {
    "no file": None,
    "empty": lambda text: "",
    "only spaces": lambda text: " \n",
    "{}": lambda text: "{}",
    "a list": lambda text: "[]",
    "null": lambda text: "null",
    "cut short": lambda text: text[: len(text) // 2],
    "trailing comma": lambda text: re.sub(r"\s*\}\s*$", ",\n}", text),
    "comment": lambda text: text.replace("{", "{ // here\n", 1),
    "byte order mark": lambda text: "\ufeff" + text,
    "UTF-16": lambda text: text.encode("utf-16"),
    "Latin-1": lambda text: text.replace("{", '{"author": "Zoë", ', 1).encode("latin-1", "replace"),
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "spaces and a line behind": lambda text: text + " \n\n\n",
    "text behind": lambda text: text + "\n<|end|>",
    "zero byte behind": lambda text: text + "\0",
    "key twice": second_key,
    "NaN and Infinity": lambda text: text.replace("{", '{"a": NaN, "b": [Infinity, -Infinity], ', 1),
    "huge numbers": lambda text: text.replace("{", '{"a": 1e400, "b": 123456789012345678901234567890, ', 1),
    "lone surrogate": lambda text: text.replace("{", r'{"a": "\ud83d", ', 1),
    "control character": lambda text: text.replace("{", '{"a": "x\ty", ', 1),
    "a pointer to large file storage": lambda text: "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1024\n",
}

for file in [CONFIG, GENERATION, TOKENIZER_CONFIG, SPECIAL_MAP, TOKENIZER]:
    for words, edit in SYNTAX.items():

        def break_file(folder, file=file, edit=edit):
            folder.remove(file) if edit is None else folder.write(file, edit(folder.read(file)))

        variant(f"{file}: {words}", break_file)
for words, edit in SYNTAX.items():
    if edit:
        variant(f"{ADDED}: {words}", write(ADDED, edit('{"<think>": 4094,\n"</think>": 4095}')))

# config.json.

values(CONFIG, "rope_theta", 10000, 5000.0, 1e6, "10000", "10000.0", True, None, ABSENT, [10000.0], 0, -1.0)
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"factor": 4.0, "original_max_position_embeddings": 512}
LONG = {"short_factor": [1.0] * 32, "long_factor": [1.0 + i / 32 for i in range(32)]}
ROPES = [
    {},
    {"type": "default"},
    {"rope_type": "default"},
    {"rope_type": None},
    {"rope_type": "default", "rope_theta": 5000.0},
    {"factor": 2.0},
    {"type": "linear", "factor": 1.0},
    {"type": "linear", "factor": 2},
    {"type": "linear", "factor": "2.0"},
    {"type": "linear", "factor": None},
    {"type": "linear"},
    {"rope_type": "linear", "factor": 2.0},
    {"type": None, "rope_type": "linear", "factor": 2.0},
    {"type": "", "rope_type": "linear", "factor": 2.0},
    {"type": "default", "rope_type": "linear", "factor": 2.0},
    {"type": "linear", "rope_type": "default", "factor": 2.0},
    {"type": "dynamic", "factor": 2.0},
    {"rope_type": "llama3", **LLAMA3},
    {"type": "llama3", "rope_type": "llama3", **LLAMA3, "rope_theta": 10000.0},
    {"rope_type": "llama3", "factor": 8},
    {"rope_type": "llama3", **LLAMA3, "low_freq_factor": None},
    {"rope_type": "yarn", **YARN},
    {"type": "yarn", **YARN, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
    {"rope_type": "yarn", **YARN, "attention_factor": None, "truncate": False},
    {"rope_type": "yarn", **YARN, "attention_factor": 1.5},
    {"rope_type": "yarn", **YARN, "beta_fast": None},
    {"rope_type": "yarn", "factor": 4.0},
    {"type": "longrope", "original_max_position_embeddings": 2048, **LONG},
    {"rope_type": "longrope", "original_max_position_embeddings": 1024, **LONG, "factor": 2.0},
    {"type": "su", "original_max_position_embeddings": 2048, **LONG},
    {"type": "mrope", "mrope_section": [8, 12, 12]},
    {"rope_type": "default", "mrope_section": [8, 12, 12]},
    {"type": "ntk", "factor": 2.0},
    False,
    "",
    [],
]
values(CONFIG, "rope_scaling", ABSENT, *ROPES)

SAME = {"rope_type": "default", "rope_theta": 10000.0}
OTHER = {"rope_type": "default", "rope_theta": 5000.0}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
for words, fields in {
    "null": {"rope_parameters": None},
    "{}": {"rope_parameters": {}},
    "[]": {"rope_parameters": []},
    "the same": {"rope_parameters": SAME},
    "without a theta": {"rope_parameters": {"rope_type": "default"}},
    "theta a string": {"rope_parameters": {"rope_type": "default", "rope_theta": "10000"}},
    "another theta than rope_theta": {"rope_parameters": OTHER},
    "linear, rope_scaling null": {"rope_parameters": LINEAR},
    "default, rope_scaling linear": {"rope_parameters": SAME, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "linear, rope_scaling default": {"rope_parameters": LINEAR, "rope_scaling": {"rope_type": "default"}},
    "linear, rope_scaling {}": {"rope_parameters": LINEAR, "rope_scaling": {}},
    "alone, same theta": {"rope_parameters": SAME, "rope_theta": ABSENT, "rope_scaling": ABSENT},
    "alone, another theta": {"rope_parameters": OTHER, "rope_theta": ABSENT, "rope_scaling": ABSENT},
    "alone, theta null": {"rope_parameters": OTHER, "rope_theta": None, "rope_scaling": None},
    "alone, linear": {"rope_parameters": LINEAR, "rope_theta": ABSENT, "rope_scaling": ABSENT},
    "by type of layer, the same": {"rope_parameters": {"full_attention": SAME}},
    "by type of layer, two": {"rope_parameters": {"full_attention": SAME, "sliding_attention": OTHER}},
    "partial_rotary_factor 1": {"rope_parameters": {**SAME, "partial_rotary_factor": 1.0}},
    "partial_rotary_factor a half": {"rope_parameters": {**SAME, "partial_rotary_factor": 0.5}},
}.items():
    variant(f"{CONFIG} rope_parameters {words}", set_fields(CONFIG, **fields))
values(CONFIG, "rope_traditional", None, ABSENT, True, 0, "false")
values(CONFIG, "partial_rotary_factor", 1.0, 0.5, None)

Q = {"group_size": 64, "bits": 4}
AFFINE = {**Q, "mode": "affine"}
FIRST = "model.layers.0.self_attn.q_proj"
for words, quantization, quantization_config in [
    ("only quantization", AFFINE, ABSENT),
    ("only quantization_config", ABSENT, AFFINE),
    ("quantization null", None, AFFINE),
    ("quantization {}", {}, AFFINE),
    ("neither", ABSENT, ABSENT),
    ("quantization_config null", AFFINE, None),
    ("quantization_config {}", AFFINE, {}),
    ("both null", None, None),
    ("mode missing", Q, Q),
    ("mode null", {**Q, "mode": None}, Q),
    ("mode unknown", {**Q, "mode": "symmetric"}, Q),
    ("mode contradicts the weights", {"group_size": 32, "bits": 4, "mode": "mxfp4"}, Q),
    ("bits null", {**AFFINE, "bits": None}, AFFINE),
    ("bits missing", {"group_size": 64, "mode": "affine"}, AFFINE),
    ("bits a string", {**AFFINE, "bits": "4"}, AFFINE),
    ("bits a float", {**AFFINE, "bits": 4.0}, AFFINE),
    ("bits contradict the weights", {**AFFINE, "bits": 8}, AFFINE),
    ("bits impossible", {**AFFINE, "bits": 7}, AFFINE),
    ("group_size null", {**AFFINE, "group_size": None}, AFFINE),
    ("group_size missing", {"bits": 4, "mode": "affine"}, AFFINE),
    ("group_size a string", {**AFFINE, "group_size": "64"}, AFFINE),
    ("group_size a float", {**AFFINE, "group_size": 64.0}, AFFINE),
    ("group_size contradicts the weights", {**AFFINE, "group_size": 128}, AFFINE),
    ("quantization_config contradicts", AFFINE, {"group_size": 32, "bits": 8}),
    ("quantization_config is of another tool", AFFINE, {"quant_method": "awq", "bits": 4, "group_size": 128}),
    ("quant_method null", {**AFFINE, "quant_method": None}, AFFINE),
    ("quant_method mlx", {**AFFINE, "quant_method": "mlx"}, AFFINE),
    ("quant_method affine", {**AFFINE, "quant_method": "affine"}, AFFINE),
    ("quant_method of another tool beside bits", {**AFFINE, "quant_method": "gptq"}, AFFINE),
    ("only quantization_config, quant_method mlx", ABSENT, {**AFFINE, "quant_method": "mlx"}),
    ("true", True, AFFINE),
    ("false", False, AFFINE),
    ("a number", 4, AFFINE),
    ("a layer true", {**AFFINE, FIRST: True}, AFFINE),
    ("a layer null", {**AFFINE, FIRST: None}, AFFINE),
    ("a layer {}", {**AFFINE, FIRST: {}}, AFFINE),
    ("a layer with its sizes", {**AFFINE, FIRST: AFFINE}, AFFINE),
    ("a layer with floats", {**AFFINE, FIRST: {"group_size": 64.0, "bits": 4.0}}, AFFINE),
    ("a layer with only bits", {**AFFINE, FIRST: {"bits": 4}}, AFFINE),
    ("a layer with nulls", {**AFFINE, FIRST: {**Q, "mode": None}}, AFFINE),
    ("a layer that contradicts its weights", {**AFFINE, FIRST: {**AFFINE, "bits": 8}}, AFFINE),
    ("a layer false, but packed", {**AFFINE, FIRST: False}, AFFINE),
    ("layers that do not exist", {**AFFINE, "model.layers.90.mlp.gate": {"bits": 8, "group_size": 64}, "lm_head": False}, AFFINE),
    ("only in quantization_config: a layer", AFFINE, {**AFFINE, FIRST: {**AFFINE, "bits": 8}}),
    ("fields of other tools", {**AFFINE, "sym": True, "ignore": ["lm_head"], "modules_to_not_convert": None, "kv": {"bits": 8}}, AFFINE),
    ("quantize_input", {**AFFINE, "quantize_input": False, FIRST: {**AFFINE, "quantize_input": False}}, AFFINE),
    ("quantize_input true", {**AFFINE, FIRST: {**AFFINE, "quantize_input": True}}, AFFINE),
    ("linear_class and the like", {**AFFINE, "linear_class": "QuantizedLinear", "quant_method": None, "bits_per_weight": 4.5}, AFFINE),
]:
    fields = {"quantization": quantization, "quantization_config": quantization_config}
    variant(f"{CONFIG} quantization: {words}", set_fields(CONFIG, **fields))
values(CONFIG, "quantize_activations", False, None, True)
variant(
    f"{CONFIG} quantization: only in text_config",
    set_fields(CONFIG, quantization=ABSENT, quantization_config=ABSENT, text_config={"quantization": AFFINE}),
)

values(CONFIG, "tie_word_embeddings", None, ABSENT, False, "true", 1)
values(CONFIG, "head_dim", None, ABSENT, 64.0, "64", 0, 32)
values(CONFIG, "num_key_value_heads", None, ABSENT, 2.0, "2", 0, [2, 2, 2, 2, 2, 2, 2])
values(CONFIG, "rms_norm_eps", 1e-6, "1e-05", "0.00001", None, ABSENT, True, 0, 0.0)
values(CONFIG, "torch_dtype", None, ABSENT, "float32", "bfloat16", "torch.float16", "auto", "float8", 16, {"": "float16"})
values(CONFIG, "dtype", None, "float16", "bfloat16", "no such type", ["float16"])
values(CONFIG, "max_position_embeddings", None, ABSENT, 2048.0, "2048", 0, -1, 131072, 10_000_000, 1e30, 16)
values(CONFIG, "sliding_window", None, 8, 0, -1, "8", 4096.0, [8])
variant(f"{CONFIG} use_sliding_window false", set_fields(CONFIG, sliding_window=8, use_sliding_window=False, max_window_layers=0))
variant(f"{CONFIG} use_sliding_window true", set_fields(CONFIG, sliding_window=8, use_sliding_window=True, max_window_layers=0))
FULL, SLIDING = "full_attention", "sliding_attention"
values(CONFIG, "layer_types", None, [FULL] * 7, [FULL] * 6, [], [FULL] * 8, FULL, ["attention"] * 7)
values(CONFIG, "layer_types", [SLIDING, FULL] * 3 + [FULL], beside=("sliding_window=8", set_fields(CONFIG, sliding_window=8)))
values(CONFIG, "layer_types", [SLIDING, FULL] * 3 + [FULL], beside=("sliding_window null", set_fields(CONFIG, sliding_window=None)))
values(CONFIG, "hidden_act", None, ABSENT, "swish", "SiLU", "gelu", 1)
for field, number in {
    "hidden_size": 384,
    "num_hidden_layers": 7,
    "num_attention_heads": 6,
    "intermediate_size": 1024,
    "vocab_size": 4096,
}.items():
    values(CONFIG, field, float(number), str(number), None, number + 1)
values(CONFIG, "vocab_size", 4000, 4160)
values(CONFIG, "attention_bias", None, ABSENT, 0, "false", True)
values(CONFIG, "mlp_bias", None, ABSENT, 0, True)
values(CONFIG, "model_type", None, ABSENT, "mistral", "Llama", "LLAMA", "iquestcoder", "xverse", "llama3", ["llama"], "qwen2", "nonsense")
values(CONFIG, "architectures", None, ABSENT, [], "LlamaForCausalLM", ["LlamaModel"], ["NoSuchModel"], ["LlamaForSequenceClassification"])
values(CONFIG, "bos_token_id", 1, "1", [1], -1, ABSENT)
values(CONFIG, "pad_token_id", None, ABSENT, -1, "0", [0], 99999)
values(CONFIG, "pretraining_tp", 2, None)
values(CONFIG, "text_config", None, {}, [], {"hidden_size": 1, "num_hidden_layers": 2, "eos_token_id": 5, "vocab_size": 10})
values(CONFIG, "vision_config", None, {}, {"hidden_size": 10})
values(CONFIG, "auto_map", {"AutoModelForCausalLM": "modeling_foo.Foo"})
values(CONFIG, "transformers_version", None, "99.0")
values(CONFIG, "model_file", None, "model.py")
values(CONFIG, "unsloth_fixed", True)
values(CONFIG, "attn_logit_softcapping", None, 50.0)
values(CONFIG, "final_logit_softcapping", None, 30.0)
values(CONFIG, "rope_interleaved", False)
values(CONFIG, "time_step_limit", {"__float__": "Infinity"}, [0.0, float("inf")])

EOS = [2, [2], [2, 0], [2.0], 2.0, "2", ["2"], None, ABSENT, [], 0, True, False, [[2]], [2, None], {"a": 2}, -1, [-1], 99999, [2, 99999], 15]
NO_GENERATION = ("no generation_config", remove(GENERATION))
NO_EOS = (
    "nothing else",
    both(
        remove(GENERATION, SPECIAL_MAP),
        set_fields(CONFIG, eos_token_id=ABSENT),
        set_fields(TOKENIZER_CONFIG, eos_token=ABSENT),
    ),
)
OF_TOKENIZER_NOT = ("none in the tokenizer", both(remove(SPECIAL_MAP), set_fields(TOKENIZER_CONFIG, eos_token=ABSENT)))
values(CONFIG, "eos_token_id", *EOS, beside=NO_GENERATION)
values(CONFIG, "eos_token_id", None, ABSENT, 0, [2, 0], "2", -1, 15)
values(GENERATION, "eos_token_id", *EOS)
values(GENERATION, "eos_token_id", 2, None, ABSENT, [], 0, [2, 0], 15, beside=OF_TOKENIZER_NOT)
EOS_TOKENS = [
    "<|im_end|>",
    "<|endoftext|>",
    "</s>",
    "",
    None,
    {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False},
    {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
    {"content": "<|im_end|>"},
    {"content": None},
    {},
    ["<|im_end|>"],
    2,
    True,
]
values(TOKENIZER_CONFIG, "eos_token", *EOS_TOKENS)
values(TOKENIZER_CONFIG, "eos_token", *EOS_TOKENS, beside=NO_EOS)
values(SPECIAL_MAP, "eos_token", *EOS_TOKENS)
variant("eos only in special_tokens_map.json", NO_EOS[1], write(SPECIAL_MAP, {"eos_token": "<|im_end|>"}))
variant(
    "eos only in special_tokens_map.json, no added_tokens_decoder",
    NO_EOS[1],
    write(SPECIAL_MAP, {"eos_token": "<|im_end|>"}),
    set_fields(TOKENIZER_CONFIG, added_tokens_decoder=ABSENT),
)
variant(
    "eos only in special_tokens_map.json as an object, no added_tokens_decoder",
    NO_EOS[1],
    write(SPECIAL_MAP, {"eos_token": {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}}),
    set_fields(TOKENIZER_CONFIG, added_tokens_decoder=ABSENT),
)
variant(
    "eos of special_tokens_map.json contradicts tokenizer_config.json, no added_tokens_decoder",
    NO_EOS[1],
    write(SPECIAL_MAP, {"eos_token": "<|im_end|>"}),
    set_fields(TOKENIZER_CONFIG, added_tokens_decoder=ABSENT, eos_token="<|endoftext|>"),
)
variant("eos only in config.json", NO_EOS[1], set_fields(CONFIG, eos_token_id=2))
variant("eos only in generation_config.json", NO_EOS[1], write(GENERATION, {"eos_token_id": [2]}))
variant("eos only in text_config", NO_EOS[1], set_fields(CONFIG, text_config={"eos_token_id": 2}))
variant("no eos at all", NO_EOS[1])
variant("eos_token_ids in config.json", NO_EOS[1], set_fields(CONFIG, eos_token_ids=[2]))

# generation_config.json.

values(GENERATION, "pad_token_id", None, -1, "0", [0])
values(GENERATION, "bos_token_id", 1, None, [1])
values(GENERATION, "max_length", 4, None, "2048", 20.0)
values(GENERATION, "max_new_tokens", 3, None)
values(GENERATION, "temperature", 0.7, None, "0.7", 0)
values(GENERATION, "top_k", 50, None, 20.0, -1)
values(GENERATION, "top_p", 0.8, 1, None, 2.0)
values(GENERATION, "repetition_penalty", 1.5, None, 1)
values(GENERATION, "do_sample", True, None, "false")
values(GENERATION, "suppress_tokens", None, [5, 6, 7])
values(GENERATION, "stop_strings", None, ["."])
values(GENERATION, "forced_eos_token_id", 15)
values(GENERATION, "transformers_version", None)
values(GENERATION, "_from_model_config", True)

# tokenizer_config.json.

for field in ["add_bos_token", "add_prefix_space", "added_tokens_decoder", "additional_special_tokens", "clean_up_tokenization_spaces"]:
    values(TOKENIZER_CONFIG, field, None, ABSENT)
values(TOKENIZER_CONFIG, "add_bos_token", True, "false", 0)
values(TOKENIZER_CONFIG, "add_eos_token", True, False, None)
values(TOKENIZER_CONFIG, "add_prefix_space", True)
values(TOKENIZER_CONFIG, "clean_up_tokenization_spaces", True, "false")
values(TOKENIZER_CONFIG, "bos_token", "<|im_start|>", "<s>", {"content": "<|im_start|>"}, 1, ABSENT, "")
values(TOKENIZER_CONFIG, "unk_token", "<unk>", "<|endoftext|>", {"content": "<unk>", "special": True}, 5, ABSENT)
values(TOKENIZER_CONFIG, "pad_token", None, ABSENT, "[PAD]", "<|im_end|>", {"content": "[PAD]"}, 0)
values(TOKENIZER_CONFIG, "mask_token", "[MASK]", None)
values(TOKENIZER_CONFIG, "image_token", "<image>", None, {"content": "<image>"})
values(TOKENIZER_CONFIG, "image_token_id", 7)
values(TOKENIZER_CONFIG, "boi_token", 7, ["x"])
values(TOKENIZER_CONFIG, "additional_special_tokens", [], ["<tool_call>"], [{"content": "<|im_start|>"}], ["<new>"], "<|im_end|>", {})
values(
    TOKENIZER_CONFIG, "extra_special_tokens", None, {}, [], ["<tool_call>"], {"x_token": "<|im_start|>"}, {"x_token": "<new>"}, ["<new>"], "x"
)
values(TOKENIZER_CONFIG, "extra_special_tokens", {"x": None}, {"x": 5}, {"x": {"content": "<think>"}}, {"x": ["a"]})
values(TOKENIZER_CONFIG, "model_max_length", None, ABSENT, 1e30, 1000000000000000019884624838656, 5, "2048", 2048.0, -1, 0)
CLASSES = [
    None,
    ABSENT,
    "",
    "NoSuchTokenizer",
    "PreTrainedTokenizer",
    "TokenizersBackend",
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "CodeLlamaTokenizer",
    "Qwen2Tokenizer",
    "Qwen2TokenizerFast",
    "GemmaTokenizer",
    "GPTNeoXTokenizer",
    "CohereTokenizer",
    "BloomTokenizerFast",
    "MistralCommonTokenizer",
    "T5Tokenizer",
    "TikTokenTokenizer",
    "NewlineTokenizer",
    5,
]
values(TOKENIZER_CONFIG, "tokenizer_class", *CLASSES)
values(TOKENIZER_CONFIG, "auto_map", {"AutoTokenizer": ["tokenization_foo.Foo", None]}, None)
values(TOKENIZER_CONFIG, "backend", "tokenizers", "sentencepiece")
values(TOKENIZER_CONFIG, "tokenizer_file", None, "/nowhere/tokenizer.json")
values(TOKENIZER_CONFIG, "name_or_path", "/nowhere/model", None)
values(TOKENIZER_CONFIG, "split_special_tokens", True, False)
values(TOKENIZER_CONFIG, "spaces_between_special_tokens", True)
values(TOKENIZER_CONFIG, "padding_side", "left", None, "middle")
values(TOKENIZER_CONFIG, "truncation_side", "left", None)
values(TOKENIZER_CONFIG, "errors", "ignore", None)
values(TOKENIZER_CONFIG, "legacy", False)
values(TOKENIZER_CONFIG, "is_local", True)
values(TOKENIZER_CONFIG, "sp_model_kwargs", {})
values(TOKENIZER_CONFIG, "vocab_size", 4096, "4096")
values(TOKENIZER_CONFIG, "max_length", 5)
values(TOKENIZER_CONFIG, "truncation", True)
values(TOKENIZER_CONFIG, "tool_parser_type", None, "json_tools", "no_such_parser")
values(TOKENIZER_CONFIG, "chat_template_type", None)
values(TOKENIZER_CONFIG, "fix_mistral_regex", True)
for words, entry in {
    "another content": {"content": "<|other|>", "special": True},
    "special false": {"content": "<|im_end|>", "special": False},
    "special missing": {"content": "<|im_end|>"},
    "lstrip and rstrip": {"content": "<|im_end|>", "lstrip": True, "rstrip": True, "special": True},
    "a string": "<|im_end|>",
    "null": None,
    "content null": {"content": None},
}.items():
    variant(f"{TOKENIZER_CONFIG} added_tokens_decoder 2: {words}", set_fields(TOKENIZER_CONFIG, added_tokens_decoder__2=entry))
for id, token in [("5000", "<beyond>"), ("4096", "[PAD]"), ("x", "<x>"), ("-1", "<y>"), ("100", "<within>")]:
    entry = {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    variant(f"{TOKENIZER_CONFIG} added_tokens_decoder {id}: {token}", set_fields(TOKENIZER_CONFIG, **{f"added_tokens_decoder__{id}": entry}))
values(TOKENIZER_CONFIG, "added_tokens_decoder", {}, [])

# Chat templates.

PLAIN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LOUD = PLAIN.replace("{{ message['content'] }}", "Hello! Who are you?")
HEAD, TAIL = PLAIN.split("{% if add")[0], "{% if add" + PLAIN.split("{% if add")[1]
for words, template in {
    "null": None,
    "absent": ABSENT,
    "empty": "",
    "spaces": "  ",
    "plain": PLAIN,
    "a list": [{"name": "default", "template": PLAIN}],
    "a list with tool_use": [{"name": "tool_use", "template": LOUD}, {"name": "default", "template": PLAIN}],
    "a list with rag": [{"name": "default", "template": PLAIN}, {"name": "rag", "template": "{% nonsense %}"}],
    "a list without default": [{"name": "chat", "template": PLAIN}],
    "an empty list": [],
    "a list of strings": [PLAIN],
    "an object": {"default": PLAIN},
    "a number": 5,
    "false": False,
    "syntax error": "{% for message in messages %}{{ message }",
    "unknown tag": "{% include 'x' %}" + PLAIN,
    "byte order mark": "\ufeff" + PLAIN,
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "escaped line ends": PLAIN.replace("\n", "{{ '\\n' }}"),
    "line end behind": PLAIN + "\n",
    "spaces behind": PLAIN + "  \n\n",
    "undefined variable": "{{ no_such }}" + PLAIN,
    "attribute of undefined": "{{ no_such.field }}" + PLAIN,
    "undefined in a sum": "{{ 'a' + no_such }}" + PLAIN,
    "bos_token": "{{ bos_token }}" + PLAIN,
    "bos_token in a sum": "{{ bos_token + '' }}" + PLAIN,
    "bos_token tested": "{% if bos_token is defined and bos_token is not none %}{{ bos_token }}{% endif %}" + PLAIN,
    "bos_token is defined": "{% if bos_token is defined %}Hi {% endif %}" + PLAIN,
    "eos_token": PLAIN.replace("<|im_end|>", "{{ eos_token }}"),
    "pad_token and unk_token": "{{ pad_token }}{{ unk_token }}" + PLAIN,
    "additional_special_tokens": "{{ additional_special_tokens }}" + PLAIN,
    "enable_thinking": "{% if enable_thinking %}<|im_start|>system\nThink.<|im_end|>\n{% endif %}" + PLAIN,
    "enable_thinking defined and false": HEAD
    + "{% if add_generation_prompt %}<|im_start|>assistant\n"
    + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    "not enable_thinking": HEAD + "<|im_start|>assistant\n{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",
    "ends in <think>": PLAIN.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}"),
    "ends in a space": PLAIN.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n {% endif %}"),
    "default system message": "<|im_start|>system\nYou are helpful.<|im_end|>\n" + PLAIN,
    "no generation prompt": HEAD + "<|im_start|>assistant\n",
    "add_generation_prompt ignored": HEAD,
    "raises": "{{ raise_exception('no') }}",
    "raises at a system message": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + PLAIN,
    "raises unless roles alternate": "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}" + PLAIN,
    "strftime_now": "{% set year = strftime_now('%Y') %}{% if year | int > 2000 %}" + PLAIN + "{% endif %}",
    "generation": PLAIN.replace("{{ message['content'] }}", "{% generation %}{{ message['content'] }}{% endgeneration %}"),
    "namespace and loop": "{% set ns = namespace(found=false) %}{% for m in messages %}{% set ns.found = true %}{% endfor %}"
    "{% if ns.found %}" + PLAIN + "{% endif %}",
    "macro": "{% macro show(m) %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endmacro %}"
    "{% for m in messages %}{{ show(m) }}{% endfor %}" + TAIL,
    "content as parts": PLAIN.replace("message['content']", "message['content'][0]['text']"),
    "content as parts or text": PLAIN.replace(
        "{{ message['content'] }}",
        "{% if message.content is string %}{{ message.content }}{% else %}{% for p in message.content %}{{ p.text }}{% endfor %}{% endif %}",
    ),
    "tools is none": "{% if tools is none %}" + PLAIN + "{% endif %}",
    "tools is defined": "{% if tools is defined %}" + PLAIN + "{% endif %}",
    "not tools is defined": "{% if tools is not defined %}Hi {% endif %}" + PLAIN,
    "documents": "{% if documents is defined and documents %}Hi{% endif %}" + PLAIN,
    "tool_call.name": PLAIN + "{% if false %}{{ tool_call.name }}<tool_call>{% endif %}",
    "split and strip": PLAIN.replace("message['content']", "message['content'].split('</think>')[-1].lstrip('\\n')"),
    "tojson": PLAIN.replace("message['content']", "message['content'] | tojson"),
    "special token of another model": PLAIN.replace("<|im_end|>", "<|im_end|></s>"),
    "long comment": "{# " + "x" * 5000 + " #}" + PLAIN,
    "line statements": "# for x in y\n" + PLAIN,
}.items():
    variant(f"{TOKENIZER_CONFIG} chat_template {words}", set_fields(TOKENIZER_CONFIG, chat_template=template))
    if isinstance(template, str) and words in ["empty", "spaces", "byte order mark", "CRLF", "line end behind", "spaces behind", "syntax error"]:
        variant(f"{TEMPLATE} {words}", set_fields(TOKENIZER_CONFIG, chat_template=ABSENT), write(TEMPLATE, template))
NO_TEMPLATE = set_fields(TOKENIZER_CONFIG, chat_template=ABSENT)
variant(f"{TEMPLATE} alone", NO_TEMPLATE, write(TEMPLATE, PLAIN))
variant(f"{TEMPLATE} Latin-1", NO_TEMPLATE, write(TEMPLATE, ("{# Zoë #}" + PLAIN).encode("latin-1")))
variant(f"{TEMPLATE} contradicts tokenizer_config.json", write(TEMPLATE, LOUD))
variant(f"{TEMPLATE} empty contradicts tokenizer_config.json", write(TEMPLATE, ""))
variant("chat_template.json alone", NO_TEMPLATE, write("chat_template.json", {"chat_template": PLAIN}))
variant("chat_template.json contradicts tokenizer_config.json", write("chat_template.json", {"chat_template": LOUD}))
variant("chat_template.json contradicts the file", NO_TEMPLATE, write("chat_template.json", {"chat_template": LOUD}), write(TEMPLATE, PLAIN))
variant("chat_template.json damaged", write("chat_template.json", "{"))
variant("chat_template.json without a template", write("chat_template.json", {"other": 5}))
variant("all three templates", write("chat_template.json", {"chat_template": "x"}), write(TEMPLATE, LOUD))
variant("chat_template.jinja2", NO_TEMPLATE, write("chat_template.jinja2", PLAIN))
variant("template.jinja", NO_TEMPLATE, write("template.jinja", PLAIN))
variant("additional_chat_templates default", NO_TEMPLATE, write("additional_chat_templates/default.jinja", PLAIN))
variant("additional_chat_templates tool_use", write(TEMPLATE, PLAIN), write("additional_chat_templates/tool_use.jinja", LOUD))
variant("additional_chat_templates damaged", write(TEMPLATE, PLAIN), write("additional_chat_templates/tool_use.jinja", "{% for %}"))
variant("additional_chat_templates without a default", write("additional_chat_templates/tool_use.jinja", LOUD))
variant("processor_config.json with a template", NO_TEMPLATE, write("processor_config.json", {"chat_template": PLAIN}))

# special_tokens_map.json and added_tokens.json.

values(SPECIAL_MAP, "bos_token", "<|im_start|>", None, "<s>")
values(SPECIAL_MAP, "additional_special_tokens", None, ["<new>"], ["<think>"], [{"content": "<think>"}], "x")
variant("bos in two files", set_fields(TOKENIZER_CONFIG, bos_token="<|im_start|>"), set_fields(SPECIAL_MAP, bos_token="<|endoftext|>"))
for words, tokens in {
    "as they are": {"<tool_call>": 4088, "</think>": 4095},
    "beyond": {"<new>": 4096},
    "far beyond": {"<new>": 100000},
    "other ids": {"<tool_call>": 5},
    "null": {"<new>": None},
    "strings": {"<new>": "4096"},
}.items():
    variant(f"{ADDED} {words}", write(ADDED, tokens))
variant(f"{ADDED} beyond, no added_tokens_decoder", write(ADDED, {"<new>": 4096}), set_fields(TOKENIZER_CONFIG, added_tokens_decoder=ABSENT))
variant("vocab.json and merges.txt beside", write("vocab.json", {"a": 0}), write("merges.txt", "#version: 0.2\n"))
variant("tokenizer.model beside", write("tokenizer.model", b"\x0a\x05nonsense"))
variant("tekken.json beside", write("tekken.json", {}))
variant("tiktoken beside", write("qwen.tiktoken", "IQ== 0\n"))
variant("preprocessor_config.json beside", write("preprocessor_config.json", {"image_processor_type": "X"}))
variant("model.py beside", write("modeling_foo.py", "raise SystemExit"))

# tokenizer.json.


def added(id, content, **fields):
    entry = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {**entry, **fields}


def change_tokenizer(edit):
    def change(folder):
        tokenizer = folder.json(TOKENIZER)
        edit(tokenizer)
        folder.write(TOKENIZER, tokenizer)

    return change


def add_tokens(*tokens):
    return change_tokenizer(lambda tokenizer: tokenizer["added_tokens"].extend(tokens))


def mark_added(**fields):
    return change_tokenizer(lambda tokenizer: [token.update(fields) for token in tokenizer["added_tokens"]])


def keep_added(keep):
    return change_tokenizer(lambda tokenizer: tokenizer.update(added_tokens=[t for t in tokenizer["added_tokens"] if keep(t)]))


TRUNCATION = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 64},
    "direction": "Left",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "<|endoftext|>",
}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
SPM_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
values(TOKENIZER, "truncation", TRUNCATION, ABSENT)
values(TOKENIZER, "padding", PADDING, {**PADDING, "strategy": "BatchLongest"}, ABSENT)
values(TOKENIZER, "version", ABSENT, None, "2.0", 1.0)
values(TOKENIZER, "normalizer", ABSENT, {"type": "NFC"}, {"type": "NFKC"}, {"type": "Sequence", "normalizers": []}, {"type": "Lowercase"}, {})
values(TOKENIZER, "pre_tokenizer", None, ABSENT, BYTE_LEVEL, {**BYTE_LEVEL, "add_prefix_space": True}, {**BYTE_LEVEL, "use_regex": False})
values(TOKENIZER, "pre_tokenizer", {"type": "Sequence", "pretokenizers": [BYTE_LEVEL, DIGITS]}, {"type": "NoSuch"}, {})
values(TOKENIZER, "post_processor", ABSENT, BYTE_LEVEL, {"type": "ByteLevel"})


def template_processing(before, after):
    pieces = lambda names: [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]
    specials = {
        name: {"id": name, "ids": [["<|endoftext|>", "<|im_start|>", "<|im_end|>"].index(name)], "tokens": [name]} for name in before + after
    }
    middle = [{"Sequence": {"id": "A", "type_id": 0}}]
    single = pieces(before) + middle + pieces(after)
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": specials,
    }


BOS = {"post_processor": template_processing(["<|endoftext|>"], [])}
variant(f"{TOKENIZER} post_processor adds bos", set_fields(TOKENIZER, **BOS))
variant(
    f"{TOKENIZER} post_processor adds bos, and bos_token", set_fields(TOKENIZER, **BOS), set_fields(TOKENIZER_CONFIG, bos_token="<|endoftext|>")
)
variant(
    f"{TOKENIZER} post_processor adds bos, and so does the template",
    set_fields(TOKENIZER, **BOS),
    set_fields(TOKENIZER_CONFIG, bos_token="<|endoftext|>", chat_template="{{ bos_token }}" + PLAIN),
)
variant(
    f"{TOKENIZER} post_processor adds bos, no template",
    set_fields(TOKENIZER, **BOS),
    set_fields(TOKENIZER_CONFIG, bos_token="<|endoftext|>", chat_template=ABSENT),
)
variant(
    f"{TOKENIZER} post_processor adds bos and eos, no template",
    set_fields(TOKENIZER, post_processor=template_processing(["<|endoftext|>"], ["<|im_end|>"])),
    NO_TEMPLATE,
)
variant("no template, add_bos_token true", NO_TEMPLATE, set_fields(TOKENIZER_CONFIG, bos_token="<|im_start|>", add_bos_token=True))
values(
    TOKENIZER,
    "decoder",
    None,
    ABSENT,
    {"type": "Fuse"},
    {"type": "ByteLevel"},
    {"type": "Sequence", "decoders": [BYTE_LEVEL]},
    {"type": "NoSuch"},
    {},
)
values(
    TOKENIZER,
    "decoder",
    {"type": "Sequence", "decoders": [BYTE_LEVEL, SPM_STRIP]},
    {"type": "ByteFallback"},
    {"type": "WordPiece", "prefix": "##", "cleanup": True},
)
values(TOKENIZER, "decoder", {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "prepend_scheme": "always", "split": True})
values(TOKENIZER, "added_tokens", None, ABSENT, [])
values(TOKENIZER, "extra_field", 5)
values(TOKENIZER, "model__type", ABSENT, "Unigram", "NoSuch")
values(TOKENIZER, "model__dropout", 0.0, ABSENT, 1)
values(TOKENIZER, "model__unk_token", "<unk>", "<|endoftext|>", ABSENT)
values(TOKENIZER, "model__continuing_subword_prefix", "", ABSENT)
values(TOKENIZER, "model__end_of_word_suffix", "", ABSENT)
values(TOKENIZER, "model__byte_fallback", True, ABSENT)
values(TOKENIZER, "model__ignore_merges", True, ABSENT)
values(TOKENIZER, "model__fuse_unk", True)
values(TOKENIZER, "model__extra_field", True)
variant(
    f"{TOKENIZER} merges as pairs",
    change_tokenizer(lambda t: t["model"].update(merges=[m if isinstance(m, list) else m.split(" ") for m in t["model"]["merges"]])),
)
variant(
    f"{TOKENIZER} merges as strings",
    change_tokenizer(lambda t: t["model"].update(merges=[m if isinstance(m, str) else " ".join(m) for m in t["model"]["merges"]])),
)
variant(f"{TOKENIZER} a merge of unknown tokens", change_tokenizer(lambda t: t["model"]["merges"].append(["qqq", "zzz"])))
variant(f"{TOKENIZER} an id twice in the vocabulary", change_tokenizer(lambda t: t["model"]["vocab"].update({"zzzz": 5})))
variant(f"{TOKENIZER} an id beyond in the vocabulary", change_tokenizer(lambda t: t["model"]["vocab"].update({"zzzz": 4100})))
variant(f"{TOKENIZER} special tokens also in the vocabulary, others", change_tokenizer(lambda t: t["model"]["vocab"].update({"<think>": 7})))
variant(f"{TOKENIZER} [PAD] beyond the embedding", add_tokens(added(4096, "[PAD]")))
variant(f"{TOKENIZER} many tokens beyond the embedding", add_tokens(*[added(4096 + i, f"<extra_{i}>") for i in range(100)]))
variant(f"{TOKENIZER} a gap before a token beyond", add_tokens(added(5000, "[PAD]")))
variant(f"{TOKENIZER} [PAD] on a used id", add_tokens(added(100, "[PAD]")))
variant(f"{TOKENIZER} a token listed twice", add_tokens(added(2, "<|im_end|>")))
variant(f"{TOKENIZER} a token listed twice, other ids", add_tokens(added(4096, "<|im_end|>")))
variant(f"{TOKENIZER} an id listed twice, other tokens", add_tokens(added(2, "</s>")))
variant(f"{TOKENIZER} an ordinary word as added token", add_tokens(added(4096, " plus", special=False), added(4097, "story", special=False)))
variant(f"{TOKENIZER} an empty added token", add_tokens(added(4096, "")))
variant(f"{TOKENIZER} added tokens not special", mark_added(special=False))
variant(f"{TOKENIZER} added tokens all special", mark_added(special=True))
variant(f"{TOKENIZER} added tokens normalized", mark_added(normalized=True))
variant(f"{TOKENIZER} added tokens lstrip", mark_added(lstrip=True))
variant(f"{TOKENIZER} added tokens rstrip", mark_added(rstrip=True))
variant(f"{TOKENIZER} added tokens single_word", mark_added(single_word=True))
variant(f"{TOKENIZER} special tokens only in tokenizer_config.json", keep_added(lambda token: not token["special"]))
variant(f"{TOKENIZER} added tokens only in tokenizer_config.json", keep_added(lambda token: False))
variant(
    f"{TOKENIZER} added tokens only in tokenizer_config.json, not in the vocabulary",
    keep_added(lambda token: False),
    change_tokenizer(lambda t: [t["model"]["vocab"].pop(token, None) for token in ["<|im_start|>", "<|im_end|>"]]),
)
variant(
    f"{TOKENIZER} special tokens nowhere else",
    set_fields(TOKENIZER_CONFIG, added_tokens_decoder=ABSENT, additional_special_tokens=ABSENT),
    remove(SPECIAL_MAP),
)
variant(
    "tokenizer_config.json of the tokenizer only",
    write(TOKENIZER_CONFIG, {"tokenizer_class": "PreTrainedTokenizerFast"}),
    write(TEMPLATE, PLAIN),
)
variant("tokenizer_config.json absent, template in a file", remove(TOKENIZER_CONFIG), write(TEMPLATE, PLAIN))


def sentencepiece(decoder, **more):
    """The same tokenizer in the manner of those made from SentencePiece models: `▁` for a space, `<0x0A>` for a line end."""

    def edit(tokenizer):
        rename = lambda token: token.replace("Ġ", "▁").replace("Ċ", "\n")
        model = tokenizer["model"]
        vocab = {rename(token): id for token, id in model["vocab"].items()}
        if "\n" in vocab:
            vocab["<0x0A>"] = vocab.pop("\n")
        pairs = [m if isinstance(m, list) else m.split(" ") for m in model["merges"]]
        merges = [[rename(a), rename(b)] for a, b in pairs]
        merges = [[a, b] for a, b in merges if a in vocab and b in vocab and a + b in vocab]
        model.update(vocab=vocab, merges=merges, byte_fallback=True)
        tokenizer.update(
            normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, pre_tokenizer=DIGITS, decoder=decoder, **more
        )

    return change_tokenizer(edit)


SPM = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}
variant(f"{TOKENIZER} SentencePiece, no space stripped", sentencepiece({"type": "Sequence", "decoders": SPM}))
variant(f"{TOKENIZER} SentencePiece, a space stripped", sentencepiece({"type": "Sequence", "decoders": [*SPM, SPM_STRIP]}))
variant(f"{TOKENIZER} SentencePiece, only Replace", sentencepiece(SPM[0]))
variant(f"{TOKENIZER} SentencePiece, Fuse missing", sentencepiece({"type": "Sequence", "decoders": SPM[:2]}))
variant(f"{TOKENIZER} SentencePiece, Metaspace decoder", sentencepiece(METASPACE))
variant(f"{TOKENIZER} SentencePiece, Metaspace decoder always", sentencepiece({**METASPACE, "prepend_scheme": "always"}))
variant(f"{TOKENIZER} SentencePiece, no decoder", sentencepiece(None))
PREPEND = {
    "type": "Sequence",
    "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
}


def prepending(tokenizer):
    tokenizer["normalizer"] = PREPEND


variant(
    f"{TOKENIZER} SentencePiece, space before each text",
    sentencepiece({"type": "Sequence", "decoders": [*SPM, SPM_STRIP]}),
    change_tokenizer(prepending),
)
for fields in [
    {"tokenizer_class": "LlamaTokenizer", "legacy": False},
    {"tokenizer_class": "LlamaTokenizerFast", "legacy": True},
    {"tokenizer_class": "LlamaTokenizer"},
    {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_prefix_space": True},
]:
    variant(
        f"{TOKENIZER} SentencePiece, {show(fields)}",
        sentencepiece({"type": "Sequence", "decoders": [*SPM, SPM_STRIP]}),
        change_tokenizer(prepending),
        set_fields(TOKENIZER_CONFIG, add_prefix_space=ABSENT),
        set_fields(TOKENIZER_CONFIG, **fields),
    )

# Weights: files.


def shards(count, names="model-{:05}-of-{:05}.safetensors", index=True, edit=lambda index: None):
    """Divides the weights among several files."""

    def change(folder):
        tensors = folder.tensors()
        weight_map = {}
        for number in range(count):
            name = names.format(number + 1, count)
            part = {key: tensors[key] for key in sorted(tensors)[number::count]}
            folder.save(name, part)
            weight_map.update({key: name for key in part})
        folder.remove(WEIGHTS)
        if index:
            content = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
            edit(content)
            folder.write(INDEX, content)

    return change


def save(name, edit=lambda tensors: tensors, metadata={"format": "mlx"}):
    """Writes the weights, changed, into a file."""

    def change(folder):
        folder.save(name, edit(folder.tensors()), metadata)

    return change


def few(tensors):
    return {key: tensors[key] for key in sorted(tensors)[:3]}


def rename_weights(name):
    return lambda folder: folder.rename(WEIGHTS, name)


def without(*keys):
    return lambda tensors: {key: value for key, value in tensors.items() if key not in keys}


NORM, DOWN = "model.norm.weight", "model.layers.6.mlp.down_proj.weight"
for count in [1, 2, 3]:
    variant(f"weights: {count} shards", shards(count))
    variant(f"weights: {count} shards, no index", shards(count, index=False))
for words, edit in {
    "no metadata": lambda index: index.pop("metadata"),
    "metadata null": lambda index: index.update(metadata=None),
    "total_size wrong": lambda index: index.update(metadata={"total_size": "5"}),
    "total_size a float": lambda index: index.update(metadata={"total_size": 7e6, "total_parameters": None}),
    "an entry missing": lambda index: index["weight_map"].pop(NORM),
    "all entries of a shard missing": lambda index: index.update(weight_map={k: v for k, v in index["weight_map"].items() if "00001" in v}),
    "an entry too many": lambda index: index["weight_map"].update({"model.layers.9.x": "model-00001-of-00002.safetensors"}),
    "rotary inv_freq too many": lambda index: index["weight_map"].update(
        {"model.layers.0.self_attn.rotary_emb.inv_freq": "model-00001-of-00002.safetensors"}
    ),
    "an entry in the wrong shard": lambda index: index["weight_map"].update(
        {NORM: "model-00001-of-00002.safetensors", DOWN: "model-00001-of-00002.safetensors"}
    ),
    "a shard that is not there": lambda index: index["weight_map"].update({"x": "model-00003-of-00003.safetensors"}),
    "names of another sharding": lambda index: index.update(weight_map={k: v.replace("00002", "00009") for k, v in index["weight_map"].items()}),
    "names of the unquantized model": lambda index: index.update(
        weight_map={k: v for k, v in index["weight_map"].items() if not k.endswith(("scales", "biases"))}
    ),
    "names with a folder": lambda index: index.update(weight_map={k: "./" + v for k, v in index["weight_map"].items()}),
    "weight_map missing": lambda index: index.pop("weight_map"),
    "weight_map null": lambda index: index.update(weight_map=None),
    "weight_map {}": lambda index: index.update(weight_map={}),
    "a value null": lambda index: index["weight_map"].update({NORM: None}),
}.items():
    variant(f"weights: index with {words}", shards(2, edit=edit))
for words, edit in SYNTAX.items():
    if edit:

        def break_index(folder, edit=edit):
            shards(2)(folder)
            folder.write(INDEX, edit(folder.read(INDEX)))

        variant(f"{INDEX}: {words}", break_index)
STRAY_INDEX = {"metadata": {}, "weight_map": {NORM: "model-00001-of-00002.safetensors", "lm_head.weight": "model-00002-of-00002.safetensors"}}
variant("weights: index of another sharding beside model.safetensors", write(INDEX, STRAY_INDEX))
variant("weights: damaged index beside model.safetensors", write(INDEX, "{"))
variant("weights: index that names model.safetensors", write(INDEX, {"weight_map": {NORM: WEIGHTS}}))
for words, name in {
    "adapters": "adapters.safetensors",
    "adapter_model": "adapter_model.safetensors",
    "consolidated": "consolidated.safetensors",
    "consolidated shard": "consolidated.00.safetensors",
    "optimizer": "optimizer.safetensors",
    "AppleDouble": "._model.safetensors",
    "hidden": ".model.safetensors",
    "upper case": "MODEL.SAFETENSORS",
    "temporary": "model.safetensors.tmp",
    "incomplete": "model.safetensors.incomplete",
    "backup": "model.safetensors.bak",
    "in a folder": "original/model.safetensors",
    "mtp": "mtp.safetensors",
    "vision": "vision_tower.safetensors",
}.items():
    variant(f"weights: a stray file beside, {words}", write(name, b"\x00\x05\x16\x07 no tensors"))
# Not with other numbers in the second file: with mlx-lm the file that the folder happens to list last wins.
for words, name in {
    "a shard": "model-00001-of-00002.safetensors",
    "a copy": "model (1).safetensors",
    "another copy": "model copy.safetensors",
    "a visual part": "model-visual.safetensors",
    "a part for multi-token prediction": "model_mtp.safetensors",
}.items():
    variant(f"weights: {words} beside, not readable", write(name, b""))
    variant(f"weights: {words} beside, the same tensors", save(name, few))
    variant(f"weights: {words} beside, other tensors", save(name, lambda tensors: {"extra.weight": tensors[NORM]}))
variant(
    "weights: shards of another sharding beside, no index",
    shards(2, index=False),
    lambda f: shutil.copyfile(f.path / "model-00001-of-00002.safetensors", f.path / "model-00001-of-00003.safetensors"),
)
variant(
    "weights: shards of another sharding beside, index",
    shards(2),
    lambda f: shutil.copyfile(f.path / "model-00001-of-00002.safetensors", f.path / "model-00001-of-00003.safetensors"),
)
variant("weights: unreadable shard of another sharding beside, index", shards(2), write("model-00001-of-00003.safetensors", b""))
variant(
    "weights: more tensors in a file that the index does not name",
    shards(2),
    lambda f: f.save("model-extra.safetensors", {"extra.weight": mx.zeros((2, 2))}),
)
for name in [
    "weights.safetensors",
    "weights.00.safetensors",
    "consolidated.safetensors",
    "pytorch_model.safetensors",
    "model-final.safetensors",
    "model.q4.safetensors",
    "Model.safetensors",
    "model.SAFETENSORS",
    "nano.safetensors",
]:
    variant(f"weights: only {name}", rename_weights(name))
variant("weights: shards with the names of others", shards(2, names="model_{}_of_{}.safetensors"))
variant("weights: shards with the names of others, no index", shards(2, names="model.{:03}.safetensors", index=False))
variant("weights: shards not beginning with model", shards(2, names="part-{}-of-{}.safetensors"))
variant("weights: none", remove(WEIGHTS))
variant("weights: empty file", write(WEIGHTS, b""))
variant("weights: a pointer to large file storage", write(WEIGHTS, SYNTAX["a pointer to large file storage"]("")))
variant("weights: cut short", lambda f: f.write(WEIGHTS, (f.path / WEIGHTS).read_bytes()[:-1000]))
variant("weights: bytes behind", lambda f: f.write(WEIGHTS, (f.path / WEIGHTS).read_bytes() + b"\0" * 8))
variant("weights: pytorch_model.bin beside", write("pytorch_model.bin", b"PK"), write("pytorch_model.bin.index.json", {}))
variant("weights: gguf beside", write("model.gguf", b"GGUF"))


def hub_layout(folder):
    """Files as links to blobs, as in the hub's cache."""
    repository = folder.path / "models--x--y"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.path.iterdir())):
        if file.is_file():
            file.rename(repository / "blobs" / str(number))
            (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    folder.path = snapshot


def link_outside(folder):
    outside = folder.path.parent / "outside.safetensors"
    outside.unlink(missing_ok=True)
    (folder.path / WEIGHTS).rename(outside)
    (folder.path / WEIGHTS).symlink_to(outside)


variant("weights: links into the hub's blobs", hub_layout)
variant("weights: a link out of the folder", link_outside)

# Weights: tensors.


def metadata(value):
    """Rewrites the header with another `__metadata__`."""

    def change(folder):
        content = (folder.path / WEIGHTS).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        if value is not ABSENT:
            header["__metadata__"] = value
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        folder.write(WEIGHTS, len(text).to_bytes(8, "little") + text + content[8 + length :])

    return change


for value in [ABSENT, None, {}, {"format": "pt"}, {"format": None}, {"format": "pt", "n": 5}, {"format": "mlx", "quantization": {"bits": 4}}]:
    variant(f"weights: metadata {value!r}", metadata(value))


def cast(dtype, chosen=lambda key: True):
    return lambda tensors: {k: t.astype(dtype) if chosen(k) and mx.issubdtype(t.dtype, mx.floating) else t for k, t in tensors.items()}


def prefixed(prefix, old=""):
    return lambda tensors: {prefix + key.removeprefix(old): value for key, value in tensors.items()}


def plus(**more):
    return lambda tensors: {**tensors, **{key.replace("__", "."): value for key, value in more.items()}}


for dtype in [mx.float32, mx.bfloat16]:
    name = str(dtype).split(".")[-1]
    variant(f"tensors: all {name}", save(WEIGHTS, cast(dtype)))
    variant(f"tensors: norms {name}", save(WEIGHTS, cast(dtype, lambda key: "norm" in key)))
    variant(f"tensors: scales {name}", save(WEIGHTS, cast(dtype, lambda key: key.endswith("scales"))))
    variant(f"tensors: one layer {name}", save(WEIGHTS, cast(dtype, lambda key: "layers.3." in key)))
variant("tensors: norms of integers", save(WEIGHTS, lambda t: {**t, NORM: mx.ones(384, dtype=mx.int32)}))
variant("tensors: rotary inv_freq", save(WEIGHTS, plus(model__layers__0__self_attn__rotary_emb__inv_freq=mx.ones(32))))
variant("tensors: rotary inv_freq at the top", save(WEIGHTS, plus(model__rotary_emb__inv_freq=mx.ones(32))))
variant("tensors: an attention mask", save(WEIGHTS, plus(model__layers__0__self_attn__bias=mx.ones((1, 1, 8, 8)))))
variant(
    "tensors: a layer too many",
    save(WEIGHTS, lambda t: {**t, **{k.replace("layers.6.", "layers.7."): v for k, v in t.items() if "layers.6." in k}}),
)
variant("tensors: a layer too few", save(WEIGHTS, lambda t: {k: v for k, v in t.items() if "layers.6." not in k}))
variant("tensors: a norm missing", save(WEIGHTS, without(NORM)))
variant("tensors: biases missing", save(WEIGHTS, without(DOWN.replace("weight", "biases"))))
variant("tensors: scales missing", save(WEIGHTS, without(DOWN.replace("weight", "scales"))))
variant("tensors: adapters in the file", save(WEIGHTS, plus(model__layers__0__self_attn__q_proj__lora_a=mx.ones((384, 8)))))
variant("tensors: key and value scales", save(WEIGHTS, plus(model__layers__0__self_attn__k_scale=mx.ones(1))))
variant("tensors: a bias that the configuration does not name", save(WEIGHTS, plus(model__layers__0__self_attn__q_proj__bias=mx.zeros(384))))
for prefix, old in [
    ("language_model.", ""),
    ("", "model."),
    ("model.", ""),
    ("model.language_model.", "model."),
    ("transformer.", "model."),
    ("module.", ""),
    ("_orig_mod.", ""),
]:
    variant(f"tensors: prefix {prefix or '(none)'} for {old or '(none)'}", save(WEIGHTS, prefixed(prefix, old)))
HEAD_KEYS = ["weight", "scales", "biases"]


def with_head(factor):
    """An output head beside the embedding: its numbers, or the rows in another order."""

    def edit(tensors):
        order = mx.arange(4096) if factor == 1 else mx.concatenate([mx.arange(100), mx.arange(4095, 99, -1)])
        return {**tensors, **{f"lm_head.{key}": tensors[f"model.embed_tokens.{key}"][order] for key in HEAD_KEYS}}

    return edit


for tied in [True, False, None, ABSENT]:
    variant(
        f"tensors: lm_head the same, tie_word_embeddings={tied!r}", save(WEIGHTS, with_head(1)), set_fields(CONFIG, tie_word_embeddings=tied)
    )
    variant(f"tensors: lm_head another, tie_word_embeddings={tied!r}", save(WEIGHTS, with_head(2)), set_fields(CONFIG, tie_word_embeddings=tied))
variant("tensors: lm_head, no embedding", save(WEIGHTS, lambda t: {k.replace("model.embed_tokens", "lm_head"): v for k, v in t.items()}))
variant("tensors: embedding with more rows", lambda f: requantize(lambda path: AFFINE, rows=4160)(f), set_fields(CONFIG, vocab_size=4160))
variant("tensors: embedding with more rows than vocab_size", lambda f: requantize(lambda path: AFFINE, rows=4160)(f))
variant(
    "tensors: embedding with fewer rows than the tokenizer",
    lambda f: requantize(lambda path: AFFINE, rows=4064)(f),
    set_fields(CONFIG, vocab_size=4064),
)

# Quantization: the weights made anew.

EMBEDDING = "model.embed_tokens"


def requantize(choose, listed=True, rows=None, dtype=mx.float16, config=None):
    """Quantizes every matrix as `choose` says for its path: `{"bits", "group_size", "mode"}`, or `None` to leave it dense. The configuration
    lists what is not like the first; `config` replaces what it says."""

    def change(folder):
        tensors, made, entries = folder.tensors(), {}, {}
        for key, tensor in tensors.items():
            path = key.rsplit(".", 1)[0]
            if key.endswith((".scales", ".biases")):
                continue
            if f"{path}.scales" not in tensors:
                made[key] = tensor.astype(dtype)
                continue
            dense = mx.dequantize(tensor, tensors[f"{path}.scales"], tensors[f"{path}.biases"], 64, 4).astype(mx.float32)
            if rows and path == EMBEDDING:
                dense = mx.concatenate([dense, mx.zeros((rows - 4096, 384))]) if rows > 4096 else dense[:rows]
            spec = choose(path)
            entries[path] = spec or False
            if spec is None:
                made[key] = dense.astype(dtype)
            else:
                parts = mx.quantize(dense if spec.get("mode", "affine") != "affine" else dense.astype(dtype), **spec)
                made.update(zip([f"{path}.weight", f"{path}.scales", f"{path}.biases"], parts))
        folder.save(WEIGHTS, made)
        first = next(entry for entry in entries.values() if entry) if any(entries.values()) else None
        section = {**first, **({path: entry for path, entry in entries.items() if entry != first} if listed else {})} if first else ABSENT
        if config is not None:
            section = config
        set_fields(CONFIG, quantization=section, quantization_config=section)(folder)

    return change


def spec(bits, group_size, mode="affine"):
    return {"group_size": group_size, "bits": bits, "mode": mode}


MODES = {"mxfp4": spec(4, 32, "mxfp4"), "mxfp8": spec(8, 32, "mxfp8"), "nvfp4": spec(4, 16, "nvfp4")}
for bits in [2, 3, 4, 5, 6, 8]:
    for group_size in [32, 64, 128]:
        variant(f"quantization: {bits} bits, groups of {group_size}", requantize(lambda path, s=spec(bits, group_size): s))
variant("quantization: 8 bits, groups of 64, bfloat16", requantize(lambda path: spec(8, 64), dtype=mx.bfloat16))
variant("quantization: 8 bits, groups of 64, float32", requantize(lambda path: spec(8, 64), dtype=mx.float32))
for dtype in [mx.float16, mx.bfloat16, mx.float32]:
    variant(f"quantization: none, {str(dtype).split('.')[-1]}", requantize(lambda path: None, dtype=dtype))
for mode, s in MODES.items():
    variant(f"quantization: {mode}", requantize(lambda path, s=s: s))
    variant(f"quantization: {mode}, embedding dense", requantize(lambda path, s=s: None if path == EMBEDDING else s))
    variant(f"quantization: {mode}, embedding affine", requantize(lambda path, s=s: spec(8, 64) if path == EMBEDDING else s))
    variant(
        f"quantization: {mode}, only bits and group_size",
        requantize(lambda path, s=s: s, config={"bits": s["bits"], "group_size": s["group_size"]}),
    )
    variant(f"quantization: {mode}, only the mode", requantize(lambda path, s=s: s, config={"mode": mode}))
    variant(f"quantization: {mode}, quantize_activations", requantize(lambda path, s=s: s), set_fields(CONFIG, quantize_activations=True))
    variant(
        f"quantization: {mode}, quant_method in quantization_config",
        requantize(lambda path, s=s: s),
        set_fields(CONFIG, quantization=ABSENT, quantization_config={"quant_method": mode, "modules_to_not_convert": []}),
    )
MIXED = {
    "8 bits for down_proj": lambda path: spec(8, 64) if "down_proj" in path else spec(4, 64),
    "8 bits for the embedding": lambda path: spec(8, 64) if path == EMBEDDING else spec(4, 64),
    "a layer dense": lambda path: None if ".layers.3." in path else spec(4, 64),
    "embedding dense": lambda path: None if path == EMBEDDING else spec(4, 64),
    "attention dense": lambda path: None if "self_attn" in path else spec(4, 64),
    "groups of 32 for values": lambda path: spec(4, 32) if "v_proj" in path else spec(4, 64),
    "six kinds": lambda path: spec([2, 3, 4, 5, 6, 8][len(path) % 6], [32, 64, 128][sum(map(ord, path)) % 3]),
    "mxfp4 with affine": lambda path: MODES["mxfp4"] if "mlp" in path else spec(6, 64),
    "all modes": lambda path: [*MODES.values(), spec(4, 64)][sum(map(ord, path)) % 4],
}
for words, choose in MIXED.items():
    variant(f"quantization mixed: {words}", requantize(choose))
    variant(f"quantization mixed: {words}, not listed", requantize(choose, listed=False))
variant("quantization: 3 bits of 4 in the configuration", requantize(lambda path: spec(3, 64), config=AFFINE))
variant("quantization: dense weights, quantized in the configuration", requantize(lambda path: None, config=AFFINE))
variant("quantization: dense weights, a layer listed", requantize(lambda path: None, config={**AFFINE, FIRST: AFFINE}))
variant(
    "quantization: listed under the names of another prefix",
    requantize(MIXED["8 bits for down_proj"], config={**spec(4, 64), "language_model.model.layers.0.mlp.down_proj": spec(8, 64)}),
)
variant(
    "quantization: quant_method bitnet beside dense weights",
    requantize(lambda path: None),
    set_fields(CONFIG, quantization_config={"quant_method": "bitnet"}),
)
variant(
    "quantization: quant_method fp8 beside dense weights",
    requantize(lambda path: None),
    set_fields(CONFIG, quantization_config={"quant_method": "fp8"}),
)
variant(
    "quantization: quant_method unknown beside dense weights",
    requantize(lambda path: None),
    set_fields(CONFIG, quantization_config={"quant_method": "quip"}),
)
variant("quantization: no quant_method beside dense weights", requantize(lambda path: None), set_fields(CONFIG, quantization_config={"bits": 4}))
variant("quantization: hf_quant_config.json beside", write("hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}}))

# Where Pippin is right not to do as mlx-lm does: a pattern that the whole name of a variant matches, what happens, and why.
NO_CHAT = "a conversation needs a template; the hint names --raw"
NO_ROW = "mlx-lm makes a token of a word in the prompt, and reads beyond the embedding"
ANEW = "tokenizer.json is followed; transformers 5 makes this class anew without its normalizer, so that no text after a token has the prefix that models were trained with"
NO_REFERENCE = "mlx-lm refuses, and the weights are not those of the unchanged model"
INNER_ROPE = "what stands inside comes first, as in transformers; mlx-lm's llama takes what stands beside"
TRUE_ROPE = "mlx-lm's llama does not read rope_parameters; transformers does"
EXPECTED: list[tuple[str, str, str]] = [
    (r"config\.json rope_theta=(true|0|-1\.0)", "pippin refuses", "no such base exists"),
    (r'config\.json rope_scaling=\{"rope_type": "llama3".*"low_freq_factor": null.*', "DIFFERS", "null is absent; mlx-lm divides by it"),
    (r"config\.json rope_parameters (linear, rope_scaling (null|\{\})|alone, linear)", "DIFFERS", TRUE_ROPE),
    (r"config\.json rope_parameters another theta than rope_theta", "DIFFERS", INNER_ROPE),
    (r'config\.json rope_scaling=\{"rope_type": "default", "rope_theta": 5000\.0\}', "DIFFERS", INNER_ROPE),
    (r"config\.json rope_parameters by type of layer, two", "pippin refuses", "no layer of a llama has rotary positions of its own"),
    (r'config\.json rope_scaling=\{"type": "linear", "factor": "2\.0"\}', "DIFFERS", "a number as a text; the scaling changes the answer"),
    (r"config\.json rope_parameters alone, (theta null|another theta)", "DIFFERS", TRUE_ROPE),
    (r"config\.json head_dim=0", "pippin refuses", "no such dimension exists"),
    (r"config\.json max_position_embeddings=(0|-1)", "pippin refuses", "no such length exists"),
    (r"config\.json max_position_embeddings=16", "pippin refuses", "the context ends there; in mlx-lm it has no end"),
    (r'config\.json hidden_act="gelu"', "pippin refuses", "mlx-lm computes silu"),
    (r"eos only in text_config", "DIFFERS", "mlx-lm does not look there"),
    (r"tokenizer_config\.json eos_token=.*, nothing else", "DIFFERS", "no token; nothing else ends the answer"),
    (r"tokenizer_config\.json: (no file|\{\})", "pippin refuses", NO_CHAT),
    (r"tokenizer_config\.json chat_template (null|absent)", "pippin refuses", NO_CHAT),
    (r"tokenizer\.json post_processor adds .*, no template|no template, .*", "pippin refuses", NO_CHAT),
    (r"chat_template\.jinja2|template\.jinja|processor_config\.json with a template", "pippin refuses", NO_CHAT),
    (r"(tokenizer_config\.json chat_template|chat_template\.jinja) spaces", "DIFFERS", "mlx-lm drops the first space of an answer"),
    (r"tokenizer\.json pre_tokenizer=.*\"add_prefix_space\": true.*", "DIFFERS", "mlx-lm drops the first space of an answer"),
    (
        r'tokenizer_config\.json tokenizer_class="NewlineTokenizer"',
        "DIFFERS",
        "a class of mlx-lm's own, which stands for line ends that this model has not",
    ),
    (r"tokenizer_config\.json split_special_tokens=true", "DIFFERS", "transformers takes the template's own special tokens apart, too"),
    (r'tokenizer_config\.json (additional_special_tokens|extra_special_tokens)=.*"<new>".*', "pippin refuses", NO_ROW),
    (r"added_tokens\.json beyond, no added_tokens_decoder", "pippin refuses", NO_ROW),
    (r"tokenizer\.json an ordinary word as added token", "pippin refuses", NO_ROW),
    (r"chat_template\.jinja byte order mark", "DIFFERS", "the mark is no part of the template"),
    (r"chat_template\.json alone", "DIFFERS", "the only template there is; mlx-lm does not read it"),
    (r"tokenizer\.json decoder=.*", "DIFFERS", "a byte-level vocabulary is decoded byte by byte; mlx-lm shows its letters"),
    (r"weights: bytes behind", "pippin refuses", "the format does not allow them"),
    (r"weights: index with a shard that is not there", "pippin refuses", "an incomplete download, as far as anybody can tell"),
    (r"weights: index with names with a folder", "pippin refuses", "an index names files of its own folder, without a path"),
    (r"tensors: scales (float32|bfloat16)", "pippin refuses", "scales and biases of one matrix have one type"),
    (r"tensors: embedding with fewer rows than the tokenizer", "pippin refuses", NO_ROW),
    (r'tokenizer\.json SentencePiece, \{"tokenizer_class": "LlamaTokenizer.*', "DIFFERS", ANEW),
    (
        r"tensors: lm_head another, tie_word_embeddings=(None|\(absent\))",
        "DIFFERS",
        "the weights have a head of their own; mlx-lm takes it for a mistake",
    ),
    (r"quantization: \w+, only the mode", "DIFFERS", NO_REFERENCE),
    (r"quantization: nvfp4, quant_method in quantization_config", "DIFFERS", NO_REFERENCE),
]
