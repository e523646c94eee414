"""A pull from loopback beside curl, for the same bytes in the same run: rate and peak memory.

Pippin checks the hash and makes the file durable, curl does neither; so curl is timed with a `sync` of its file too.

Usage: python3 tools/hub/speed.py FAKE_HUB PIPPIN [MEGABYTES [RUNS]]
"""

import os
import subprocess
import sys
import tempfile
import time

fake_hub, pippin = sys.argv[1:3]
megabytes = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
runs = int(sys.argv[4]) if len(sys.argv) > 4 else 5
hub = subprocess.Popen([fake_hub, str(megabytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
endpoint = hub.stdout.readline().strip()
url = f"{endpoint}/org/model/resolve/main/model.safetensors"


def timed(command, environment):
    # What an earlier run has left to be written is not this one's to wait for.
    os.sync()
    begin = time.time()
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, (command, status)
    return megabytes / (time.time() - begin), usage.ru_maxrss / 1024


rates = {"curl": [], "curl + sync": [], "pippin": []}
memory = 0
for run in range(runs):
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "HF_HUB_CACHE": folder, "HF_ENDPOINT": endpoint}
        rate, _ = timed(["curl", "-sL", "-o", f"{folder}/file", url], environment)
        rates["curl"].append(rate)
        os.remove(f"{folder}/file")
        both = f"curl -sL -o '{folder}/file' '{url}' && sync '{folder}/file'"
        rates["curl + sync"].append(timed(["sh", "-c", both], environment)[0])
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "HF_HUB_CACHE": folder, "HF_ENDPOINT": endpoint}
        rate, peak = timed([pippin, "pull", "org/model"], environment)
        rates["pippin"].append(rate)
        memory = max(memory, peak)
    last = ", ".join(f"{name} {values[-1]:.0f} MiB/s" for name, values in rates.items())
    print(f"run {run + 1}: {last}", flush=True)
median = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
share = median["pippin"] / median["curl"]
durable = median["pippin"] / median["curl + sync"]
print("median: " + ", ".join(f"{name} {value:.0f} MiB/s" for name, value in median.items()))
print(f"{100 * share:.0f} % of curl, {100 * durable:.0f} % of curl + sync; peak memory {memory:.0f} MiB")
hub.stdin.close()
sys.exit(share < 0.7 or memory > 60)
