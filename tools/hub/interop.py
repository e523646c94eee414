"""Python's huggingface_hub and Pippin in one cache, both ways, with the fake hub as endpoint.

Usage: python3 tools/hub/interop.py FAKE_HUB PIPPIN   (in an environment with the PyPI package huggingface_hub)
"""

import json
import os
import subprocess
import sys
import tempfile

fake_hub, pippin = sys.argv[1:3]
hub = subprocess.Popen([fake_hub, "20"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
endpoint = hub.stdout.readline().strip()
os.environ.update(HF_ENDPOINT=endpoint, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")

import huggingface_hub
from huggingface_hub import scan_cache_dir, snapshot_download

print("huggingface_hub", huggingface_hub.__version__)


def run(folder, *arguments):
    environment = {"PATH": os.environ["PATH"], "HOME": folder, "HF_HUB_CACHE": folder, "HF_ENDPOINT": endpoint}
    return subprocess.run([pippin, *arguments], env=environment, check=True, capture_output=True, text=True).stdout


with tempfile.TemporaryDirectory() as folder:
    directory = run(folder, "pull", "org/model").strip()
    info = scan_cache_dir(folder)
    assert not info.warnings, info.warnings
    (repo,) = info.repos
    (revision,) = repo.revisions
    print("scan_cache_dir of Pippin's download:", repo.repo_id, sorted(revision.refs), repo.size_on_disk, "bytes,", repo.nb_files, "files, warnings:", info.warnings)
    assert repo.repo_id == "org/model" and revision.refs == {"main"} and repo.nb_files == 4
    names = [os.path.basename(p) for p in os.listdir(directory)]
    again = snapshot_download("org/model", cache_dir=folder, allow_patterns=names)
    assert os.path.realpath(again) == os.path.realpath(directory)
    offline = snapshot_download("org/model", cache_dir=folder, allow_patterns=names, local_files_only=True)
    print("snapshot_download uses it, online and offline:", os.path.realpath(offline) == os.path.realpath(directory))
    hub.stdin.write("\n")
    hub.stdin.flush()
    size = os.path.getsize(os.path.join(directory, "model.safetensors"))
    sent = int(hub.stdout.readline())
    print("weights were sent", sent / size, "times")
    assert sent == size

with tempfile.TemporaryDirectory() as folder:
    directory = snapshot_download("org/model", cache_dir=folder)
    print("snapshot_download:", sorted(os.listdir(directory)))
    hub.stdin.write("\n")
    hub.stdin.flush()
    hub.stdout.readline()
    listed = json.loads(run(folder, "list", "--json"))
    assert listed[0]["model"] == "org/model" and listed[0]["complete"], listed
    print(run(folder, "verify").strip())
    assert json.loads(run(folder, "list", "--json"))[0]["verified"]
    pulled = json.loads(run(folder, "pull", "org/model", "--json"))
    print("pippin pull transfers", pulled["transferred_bytes"], "bytes")
    assert pulled["transferred_bytes"] == 0 and os.path.realpath(pulled["directory"]) == os.path.realpath(directory)
    run(folder, "rm", "org/model", "--yes")
    assert not scan_cache_dir(folder).repos
print("fine")
hub.stdin.close()
