"""Settings of a process, for entry points and workers: importing geo_seg sets none. No torch in here."""

import os

PROCESS_VARIABLES = {
    # idle OpenMP threads that spin take the processor from the threads that read: on a busy machine of two
    # cores a training step takes several times as long
    "OMP_WAIT_POLICY": "passive",
}
"""Environment variables that have to be set before torch is imported, unless the user has set them."""


def setup_process() -> None:
    """Set the environment variables of a process that trains or predicts; call it before importing torch."""
    for name, value in PROCESS_VARIABLES.items():
        os.environ.setdefault(name, value)
