#!/usr/bin/env bash
# Half a last line of an Optuna journal is forgiven when read, and made fatal by the next write.
#
# Versions: optuna 5.0.0, Python 3.11.
#
# Behaviour: a process that is killed while it appends leaves half a line at the end of a journal
# file. Reading skips it: the study loads, the trial is shown as running. The next append puts its
# own line directly behind the half one. That makes one line of broken JSON, so the appended record
# (here: a new trial) is lost, and as soon as one more line follows nothing of the study
# can be read any more, by any process.
#
# Output seen (a study of three trials; the last is a copy whose torn line was taken out first):
#   torn ['COMPLETE', 'COMPLETE', 'RUNNING']
#   asked for a trial AttributeError
#   one more JSONDecodeError
#   loaded JSONDecodeError
#   torn line cut off ['COMPLETE', 'COMPLETE', 'RUNNING', 'COMPLETE']
#
# Why it matters to users of geo_seg: sweeps that share a journal are killed by schedulers' time
# limits. The half line must be cut off before somebody appends; once it is glued to another
# one, delete this line by hand and the study loads again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet optuna==5.0.0
venv/bin/python -W ignore - <<'EOF'
import shutil
import sys

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)
SPACE = {"lr": optuna.distributions.FloatDistribution(0, 1)}


def load(path):
    """Return the study of a journal as a new process would see it."""
    return optuna.load_study(storage=JournalStorage(JournalFileBackend(path)), study_name="sweep")


def append(path):
    """Return the states of the trials after one more, or the name of the error."""
    try:
        study = load(path)
        study.tell(study.ask(SPACE), 1.0)
        return [trial.state.name for trial in load(path).trials]
    except Exception as error:
        return type(error).__name__


def states(path):
    """Return the states of the trials, or the name of the error."""
    try:
        return [trial.state.name for trial in load(path).trials]
    except Exception as error:
        return type(error).__name__


study = optuna.create_study(storage=JournalStorage(JournalFileBackend("a.log")), study_name="sweep")
for value in range(3):
    study.tell(study.ask(SPACE), float(value))
data = open("a.log", "rb").read()
open("a.log", "wb").write(data[:-20])  # what a killed writer leaves
shutil.copy("a.log", "b.log")
seen = [states("a.log"), append("a.log"), append("a.log"), states("a.log")]
lines = open("b.log", "rb").read().splitlines(keepends=True)
open("b.log", "wb").write(b"".join(line for line in lines if line.endswith(b"\n")))
seen.append(append("b.log"))
for name, answer in zip(("torn", "asked for a trial", "one more", "loaded", "torn line cut off"), seen):
    print(name, answer)
three = ["COMPLETE", "COMPLETE", "RUNNING"]
expected = [three, "AttributeError", "JSONDecodeError", "JSONDecodeError", [*three, "COMPLETE"]]
sys.exit(0 if seen == expected else "the behaviour changed")
EOF
