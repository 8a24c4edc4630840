#!/usr/bin/env bash
# A file in --config-dir is passed over in silence where the application has one of the same name.
#
# Versions: hydra-core 1.3.8, omegaconf 2.3.1, Python 3.11.
#
# Behaviour: the folder of --config-dir is added at the end of Hydra's search path, and the first
# file of a name wins. A new name in it is found, so the option plainly works; a changed copy of one
# of the application's files is never opened. Folders named in hydra.searchpath stand behind the
# application's as well.
#
# Output seen (the application's model/unet.yaml has width 1, the user's has 2, model/own.yaml 3):
#   --config-dir mine {'model': {'width': 1}}
#   --config-dir mine model=own {'model': {'width': 3}}
#   hydra.searchpath=[mine] {'model': {'width': 1}}
#
# Why it matters to users of geo_seg: to copy a YAML of config/ to one's own folder and edit it there
# is the natural first step, and Hydra would go on with the old values. geo_seg says so for
# --config-dir; an application of one's own beside it doesn't. Give the copy a new name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet hydra-core==1.3.8 omegaconf==2.3.1
venv/bin/python -W ignore - <<'EOF'
import subprocess
import sys
from pathlib import Path

for path, text in {
    "app/config.yaml": "defaults: [model: unet]",
    "app/model/unet.yaml": "width: 1",
    "mine/model/unet.yaml": "width: 2",
    "mine/model/own.yaml": "width: 3",
}.items():
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text + "\n")
Path("main.py").write_text("""
import hydra


@hydra.main(version_base=None, config_path="app", config_name="config")
def main(config):
    print(config)


main()
""")
mine = Path("mine").resolve()
seen = []
for shown, arguments in (
    ("--config-dir mine", ["--config-dir", str(mine)]),
    ("--config-dir mine model=own", ["--config-dir", str(mine), "model=own"]),
    ("hydra.searchpath=[mine]", [f"hydra.searchpath=[{mine}]"]),
):
    run = subprocess.run([sys.executable, "main.py", *arguments], capture_output=True, text=True, check=True)
    seen.append(run.stdout.strip())
    assert not run.stderr, run.stderr
    print(shown, seen[-1])
expected = ["{'model': {'width': 1}}", "{'model': {'width': 3}}", "{'model': {'width': 1}}"]
sys.exit(0 if seen == expected else "the behaviour changed")
EOF
