#!/usr/bin/env python3
"""How llama.cpp cuts texts, for each name that `tokenizer.ggml.pre` may have, and what it makes of small vocabularies of each kind.

    gguf.py FOLDER_OF_LIBLLAMA

Writes `crates/pippin-text/tests/goldens/gguf/*.json`. The library is any build of llama.cpp whose `llama_model_params` has `vocab_only`
at byte 72; the one of the npm package @node-llama-cpp/linux-x64 3.22.1 was used.
"""

import base64
import ctypes
import json
import struct
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import small
from texts import FIXED, texts

OUT = small.ROOT / "crates/pippin-text/tests/goldens/gguf"
TEXTS = [t for t in texts(200) if "\x00" not in t and t]
NAMES = """llama-bpe deepseek-llm deepseek-coder deepseek-v3 spark2_5 youtu falcon starcoder gpt-2 jais-2 qwen2 qwen35 bloom viking tekken
chameleon gpt-4o granite-embed-multi-97m tiny_aya superbpe bailingmoe seed-coder kimi-k2 ufakzeka afmoe laguna exaone-moe minicpm5 glm4
default""".split()


def write(path, metadata):
    """A GGUF file without tensors."""
    def text(value):
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    def value(v):
        if isinstance(v, bool):
            return 7, struct.pack("<?", v)
        if isinstance(v, int):
            return 4, struct.pack("<I", v)
        if isinstance(v, float):
            return 6, struct.pack("<f", v)
        if isinstance(v, str):
            return 8, text(v)
        if isinstance(v, bytes):
            return 9, struct.pack("<IQ", 0, len(v)) + v
        kind = {str: 8, int: 5, float: 6}[type(v[0])]
        pack = text if kind == 8 else (lambda e: struct.pack("<i" if kind == 5 else "<f", e))
        return 9, struct.pack("<IQ", kind, len(v)) + b"".join(map(pack, v))

    out = [b"GGUF", struct.pack("<IQQ", 3, 0, len(metadata))]
    for key, v in metadata.items():
        kind, data = value(v)
        out += [text(key), struct.pack("<I", kind), data]
    path.write_bytes(b"".join(out))


class Library:
    class Params(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_ubyte * 128)]

    def __init__(self, folder):
        for pattern in ["libggml-base*.so*", "libggml.*so*", "libllama.*so*"]:
            self.library = ctypes.CDLL(str(sorted(Path(folder).glob(pattern))[0]), mode=ctypes.RTLD_GLOBAL)
        lib = self.library
        lib.llama_model_default_params.restype = self.Params
        lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, self.Params]
        lib.llama_model_load_from_file.restype = ctypes.c_void_p
        lib.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        lib.llama_model_get_vocab.restype = ctypes.c_void_p
        lib.llama_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32), ctypes.c_int32,
                                       ctypes.c_bool, ctypes.c_bool]
        self.callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        lib.llama_log_set.argtypes = [type(self.callback), ctypes.c_void_p]
        lib.llama_log_set(self.callback, None)
        lib.llama_backend_init()

    def ids(self, path, texts, around=False):
        params = self.library.llama_model_default_params()
        params.bytes[72] = 1
        model = self.library.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            return None
        vocab = self.library.llama_model_get_vocab(model)
        out = []
        for text in texts:
            data = text.encode()
            buffer = (ctypes.c_int32 * (len(data) * 2 + 16))()
            n = self.library.llama_tokenize(vocab, data, len(data), buffer, len(buffer), around, True)
            out.append(list(buffer[:n]))
        return out


def metadata(model, **more):
    return {"general.architecture": "llama", "general.name": "tiny", "tokenizer.ggml.model": model} | {
        f"tokenizer.ggml.{key}": value for key, value in more.items()}


def merges():
    """A vocabulary whose merges know no words, so that each cut shows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=1100, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                                  max_token_length=12)
    tokenizer.train_from_iterator(small.corpus() + TEXTS * 4, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get) + ["<|begin|>", "<|im_end|>", "<own>"]
    return {"tokens": tokens, "merges": [" ".join(pair) for pair in model["merges"]],
            "token_type": [1] * (len(tokens) - 3) + [3, 3, 4], "bos_token_id": len(tokens) - 3, "eos_token_id": len(tokens) - 2,
            "add_bos_token": True}


def sentencepiece(model, **options):
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    proto.ParseFromString(small.sentencepiece_model(**options))
    out = {"tokens": [p.piece for p in proto.pieces], "scores": [float(p.score) for p in proto.pieces],
           "token_type": [p.type for p in proto.pieces], "unknown_token_id": proto.trainer_spec.unk_id,
           "bos_token_id": proto.trainer_spec.bos_id, "eos_token_id": proto.trainer_spec.eos_id,
           "add_space_prefix": proto.normalizer_spec.add_dummy_prefix,
           "remove_extra_whitespaces": proto.normalizer_spec.remove_extra_whitespaces}
    if model == "t5":
        out["precompiled_charsmap"] = proto.normalizer_spec.precompiled_charsmap
    return out


def main():
    library = Library(sys.argv[1])
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.gguf"

        def ids(kind, entries, around=False):
            write(path, metadata(kind, **entries))
            return library.ids(path, TEXTS, around)

        def save(name, content):
            (OUT / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
            print(name, (OUT / f"{name}.json").stat().st_size // 1024, "KiB", flush=True)

        (OUT / "texts.json").write_text(json.dumps(TEXTS, ensure_ascii=False) + "\n")
        vocabulary = merges()
        found = {name: ids("gpt2", vocabulary | {"pre": name}) for name in NAMES}
        print("unknown:", [name for name, lists in found.items() if lists is None])
        # Each list once; most texts are cut alike by most.
        lists, places = [], {}
        for name in NAMES:
            if found[name]:
                places[name] = [lists.index(l) if l in lists else lists.append(l) or len(lists) - 1 for l in found[name]]
        save("pre", {"vocabulary": vocabulary, "ids": lists, "names": places})
        spm = sentencepiece("llama", **small.LLAMA | {"user_defined_symbols": ["<own>", "a.b"], "vocab_size": 720})
        for name, entries in [("spm", spm), ("spm-bare", spm | {"add_space_prefix": False, "add_bos_token": False, "add_eos_token": True})]:
            save(name, {"model": "llama", "vocabulary": entries, "ids": ids("llama", entries, True)})
        unigram = sentencepiece("t5", **small.UNIGRAM | {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": 3})
        lists = ids("t5", unigram, True)
        unigram["precompiled_charsmap"] = base64.b64encode(unigram["precompiled_charsmap"]).decode()
        save("unigram", {"model": "t5", "vocabulary": unigram, "ids": lists})


if __name__ == "__main__":
    main()
