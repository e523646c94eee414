"""kill -9 in the middle of a download, ten times: how many bytes are transferred twice, and is the hash right?

Usage: python3 tools/hub/kill.py FAKE_HUB PIPPIN [MEGABYTES]
  cargo build --release -p pippin-cli && cargo build --release -p pippin-hub --example fake_hub
  python3 tools/hub/kill.py target/release/examples/fake_hub target/release/pippin
"""

import glob
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time

fake_hub, pippin = sys.argv[1:3]
megabytes = int(sys.argv[3]) if len(sys.argv) > 3 else 200
rate = 100 << 20
hub = subprocess.Popen(
    [fake_hub, str(megabytes), str(rate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
)
endpoint = hub.stdout.readline().strip()


def sent():
    hub.stdin.write("\n")
    hub.stdin.flush()
    return int(hub.stdout.readline())


worst = 0.0
for run in range(10):
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "HF_HUB_CACHE": folder, "HF_ENDPOINT": endpoint}
        command = [pippin, "pull", "org/model"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        sent()
        first = subprocess.Popen(command, env=environment, **quiet)
        moment = random.uniform(0.2, 0.9 * (megabytes << 20) / rate)
        time.sleep(moment)
        first.kill()
        first.wait()
        time.sleep(0.2)
        before = sent()
        subprocess.run(command, env=environment, check=True, **quiet)
        after = sent()
        (path,) = glob.glob(f"{folder}/models--org--model/snapshots/*/model.safetensors")
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        right = digest == os.path.basename(os.path.realpath(path))
        twice = (before + after - size) / size
        worst = max(worst, twice)
        print(
            f"run {run + 1:2}: killed after {moment:.2f} s and {before / 2**20:6.1f} MiB; then {after / 2**20:6.1f} MiB; "
            f"twice {100 * twice:.2f} %; hash {'right' if right else 'WRONG'}",
            flush=True,
        )
        assert right
print(f"worst: {100 * worst:.2f} % twice")
hub.stdin.close()
sys.exit(worst > 0.05)
