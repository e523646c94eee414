#!/usr/bin/env python3
"""Small vocabularies of every form that Pippin reads, and the ids that the libraries they come from make of some texts.

Writes `crates/pippin-text/tests/goldens/tokenizers/`: a folder for each vocabulary, with `expected.json`, and the texts. The oracle is
transformers' `AutoTokenizer`, or tiktoken where the model's own code is; see README.md. `small.py NAME ...` writes only these.
"""

import base64
import json
import shutil
import sys
import unicodedata
from pathlib import Path

import sentencepiece
import tiktoken
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from texts import FIXED, texts

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "crates/pippin-text/tests/goldens/tokenizers"
TEXTS = texts(220)

ONE_DIGIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
THREE_DIGITS = ONE_DIGIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
HAN = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus():
    lines = (ROOT / "LICENSE-APACHE").read_text().splitlines() + [t for t in FIXED if t.strip()] * 3
    return [line.replace("\x00", "") for line in lines]


def added(entries):
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {str(i): {"content": text, **flags, "special": special} for i, (text, special) in entries.items()}


def write(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else (json.dumps(content, ensure_ascii=False) + "\n").encode()
    (folder / name).write_bytes(data)


def sentencepiece_model(**options):
    """A trained model, with a few replacements of its own: the usual table of them is larger than all the rest."""
    rules = OUT / "rules.tsv"
    OUT.mkdir(parents=True, exist_ok=True)
    pairs = [(c + 0xFEE0, c) for c in range(0x21, 0x7F)] + [(0x3000, 0x20), (0xA0, 0x20), (0x9, 0x20), (0xA, 0x20), (0xD, 0x20)]
    lines = [f"{a:X}\t{b:X}" for a, b in pairs] + ["FB01\t66 69", "2122\t54 4D", "65 301\tE9", "FDFA\t635 644 649"]
    rules.write_text("".join(line + "\n" for line in lines))
    path = OUT / "model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_prefix=str(path), minloglevel=2, num_threads=1,
        **{"normalization_rule_tsv": str(rules)} | options,
    )
    rules.unlink()
    path.with_suffix(".vocab").unlink()
    data = path.with_suffix(".model").read_bytes()
    path.with_suffix(".model").unlink()
    return data


def byte_level(pattern, size=500):
    """Tokens as bytes in the order of their ranks, their names in the alphabet of bytes, and merges."""
    tokenizer = Tokenizer(models.BPE())
    parts = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)]
    if pattern:
        parts.insert(0, pre_tokenizers.Split(Regex(pattern.replace("&&[^\\p{Han}]", "")), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    byte = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    names = sorted(model["vocab"], key=model["vocab"].get)
    return [bytes(byte[c] for c in name) for name in names], model


def lines(tokens):
    return b"".join(base64.b64encode(t) + b" %d\n" % i for i, t in enumerate(tokens))


class Own:
    """The tokenizer of a model whose code calls tiktoken."""

    def __init__(self, tokens, pattern, special, nfc=False):
        self.encoding = tiktoken.Encoding(
            "own", pat_str=pattern, mergeable_ranks={t: i for i, t in enumerate(tokens)},
            special_tokens={t: len(tokens) + i for i, t in enumerate(special)})
        self.nfc = nfc

    def encode(self, text, add_special_tokens):
        return self.encoding.encode(unicodedata.normalize("NFC", text) if self.nfc else text, allowed_special="all")

    def decode(self, ids, skip_special_tokens):
        return self.encoding.decode([i for i in ids if i not in self.encoding._special_tokens.values()])


def expected(tokenizer, oracle, texts=TEXTS):
    out = {"oracle": oracle, "before": [], "after": [], "ids": [], "decoded": {}}
    around = tokenizer.encode("a", add_special_tokens=True)
    alone = tokenizer.encode("a", add_special_tokens=False)
    place = next(i for i in range(len(around)) if around[i:i + len(alone)] == alone)
    out["before"], out["after"] = around[:place], around[place + len(alone):]
    for index, text in enumerate(texts):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.encode(text, add_special_tokens=True) == out["before"] + ids + out["after"], text
        out["ids"].append(ids)
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        if decoded != text:
            out["decoded"][str(index)] = decoded
    return out


def finish(name, oracle=None, files=None):
    folder = OUT / name
    for file, content in (files or {}).items():
        write(folder, file, content)
    tokenizer = oracle or AutoTokenizer.from_pretrained(folder)
    version = "tiktoken" if isinstance(oracle, Own) else type(tokenizer).__name__
    write(folder, "expected.json", expected(tokenizer, version))
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: {version}, {size // 1024} KiB", flush=True)


LLAMA = dict(model_type="bpe", vocab_size=700, byte_fallback=True, remove_extra_whitespaces=False,
             normalization_rule_name="identity", split_digits=True, normalization_rule_tsv="", character_coverage=0.98)


def llama():
    model = sentencepiece_model(**LLAMA)
    finish("llama", files={
        "tokenizer.model": model, "config.json": {"model_type": "llama"},
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False}})
    finish("llama-legacy", files={
        "tokenizer.model": model, "config.json": {"model_type": "llama"},
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "add_eos_token": True, "legacy": True,
                                  "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": False,
                                                "rstrip": False, "single_word": False, "special": True}}})


def mistral():
    finish("mistral", files={
        "tokenizer.model": sentencepiece_model(**LLAMA | {"user_defined_symbols": ["[INST]", "[/INST]", "a.b"], "vocab_size": 720}),
        "config.json": {"model_type": "mistral"},
        "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>"}, "added_tokens.json": {"<pad>": 720},
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}})


def phi3():
    """Places that were kept free get names; other tokens follow."""
    finish("phi3", files={
        "tokenizer.model": sentencepiece_model(**LLAMA | {"control_symbols": ["<0>", "<1>"], "vocab_size": 710}),
        "config.json": {"model_type": "phi3"},
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "legacy": False, "added_tokens_decoder": added({
            3: ("<|user|>", True), 4: ("<|endoftext|>", True), 710: ("<|im_start|>", True), 711: ("<tool>", False)})}})


def gemma():
    finish("gemma", files={
        "tokenizer.model": sentencepiece_model(**LLAMA | {
            "add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "bos_piece": "<bos>", "eos_piece": "<eos>",
            "control_symbols": ["<mask>"], "vocab_size": 760, "allow_whitespace_only_pieces": True,
            "user_defined_symbols": ["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "▁▁▁▁"]}),
        "config.json": {"model_type": "gemma2"}, "tokenizer_config.json": {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True}})


UNIGRAM = dict(model_type="unigram", vocab_size=420, character_coverage=0.99)


def unigram():
    finish("unigram", files={"tokenizer.model": sentencepiece_model(**UNIGRAM), "config.json": {"model_type": "ernie4_5"}})
    finish("unigram-bytes", files={
        "spiece.model": sentencepiece_model(**UNIGRAM | {
            "byte_fallback": True, "vocab_size": 640, "remove_extra_whitespaces": False, "add_dummy_prefix": False,
            "user_defined_symbols": ["<mask>"]}),
        "config.json": {"model_type": "umt5"}, "tokenizer_config.json": {"add_eos_token": True}},
        oracle=spiece("unigram-bytes"))


def spiece(name):
    """transformers knows the name `spiece.model` only by class: the same file under the usual name."""
    class Lazy:
        tokenizer = None

        def __getattr__(self, attribute):
            if Lazy.tokenizer is None:
                folder, copy = OUT / name, OUT / "copy"
                shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("expected.json"))
                (copy / "spiece.model").rename(copy / "tokenizer.model")
                Lazy.tokenizer = AutoTokenizer.from_pretrained(copy)
                shutil.rmtree(copy)
            return getattr(Lazy.tokenizer, attribute)
    return Lazy()


def encoders():
    finish("t5", files={
        "spiece.model": sentencepiece_model(**UNIGRAM | {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}),
        "config.json": {"model_type": "t5"}, "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "extra_ids": 100}})
    finish("xlm-roberta", files={
        "sentencepiece.bpe.model": sentencepiece_model(**UNIGRAM),
        "config.json": {"model_type": "xlm-roberta"}, "tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer"}})
    finish("albert", files={
        "spiece.model": sentencepiece_model(**UNIGRAM | {
            "pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "bos_piece": "[CLS]", "eos_piece": "[SEP]",
            "control_symbols": ["[MASK]"]}),
        "config.json": {"model_type": "albert"}, "tokenizer_config.json": {"tokenizer_class": "AlbertTokenizer"}})


def tiktokens():
    tokens, _ = byte_level(THREE_DIGITS)
    n = len(tokens)
    finish("tiktoken", files={
        "tokenizer.model": lines(tokens), "config.json": {"model_type": "llama"},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>",
            "add_bos_token": True, "added_tokens_decoder": added({
                n: ("<|begin_of_text|>", True), n + 1: ("<|end_of_text|>", True), n + 4: ("<|im_start|>", True)})}})
    tokens, _ = byte_level(ONE_DIGIT)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
    finish("qwen", Own(tokens, ONE_DIGIT, special, nfc=True), {
        "qwen.tiktoken": lines(tokens), "config.json": {"model_type": "qwen"},
        "tokenizer_config.json": {"tokenizer_class": "QWenTokenizer",
                                  "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]}}})
    tokens, _ = byte_level(HAN)
    n = len(tokens)
    names = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 5: "<|im_start|>", 200: "[PAD]"}
    special = [names.get(i, f"<|reserved_token_{n + i}|>") for i in range(256)]
    finish("kimi", Own(tokens, HAN, special), {
        "tiktoken.model": lines(tokens), "config.json": {"model_type": "kimi_k2"},
        "tokenizer_config.json": {
            "tokenizer_class": "TikTokenTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", None]},
            "bos_token": "[BOS]", "eos_token": "[EOS]",
            "added_tokens_decoder": added({n + i: (text, True) for i, text in names.items()})}})


def tekken():
    tokens, _ = byte_level(TEKKEN, 520)
    vocab = [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for i, t in enumerate(tokens)]
    special = [{"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(
        ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>"])]
    finish("tekken", files={
        "tekken.json": {
            "config": {"pattern": TEKKEN, "num_vocab_tokens": 520, "default_vocab_size": 520, "default_num_special_tokens": 20,
                       "version": "v7"},
            "vocab": vocab, "special_tokens": special},
        "config.json": {"model_type": "mistral"}, "tokenizer_config.json": {"bos_token": "<s>", "add_bos_token": True}})


def gpt2():
    for name, pattern, files in [
        ("gpt2", None, {"config.json": {"model_type": "gpt2"}, "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}}),
        ("qwen2", ONE_DIGIT, {"config.json": {"model_type": "qwen2"}, "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added({
                500: ("<|endoftext|>", True), 501: ("<|im_start|>", True), 502: ("<|im_end|>", True)})}}),
    ]:
        _, model = byte_level(pattern)
        if name == "gpt2":
            model["vocab"]["<|endoftext|>"] = len(model["vocab"])
        merges = "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in model["merges"])
        finish(name, files=files | {"vocab.json": model["vocab"], "merges.txt": merges.encode()})


def main():
    write(OUT, "texts.json", TEXTS)
    for make in [llama, mistral, phi3, gemma, unigram, encoders, tiktokens, tekken, gpt2]:
        if len(sys.argv) == 1 or make.__name__ in sys.argv[1:]:
            make()


if __name__ == "__main__":
    main()
