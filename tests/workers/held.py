"""A real job, for tests that kill it: it notes its stages and stays at the one that a file names."""

from __future__ import annotations

import os
import time


def run(service, claimed, report, job, steps):
    """Run `job` with a stop after each of `steps`: stage -> (module, name of the function)."""
    folder = service.settings.data_dir

    def stage(name):
        with (folder / "notes").open("a") as notes:
            notes.write(f"{name} {claimed.attempt} {os.getpid()}\n")
        hold = folder / "hold"
        while claimed.attempt == 1 and hold.exists() and hold.read_text() == name:
            time.sleep(0.02)

    def told(fraction, phase="", message=""):
        stage(phase)
        report(fraction, phase, message)

    originals = {name: getattr(module, step) for name, (module, step) in steps.items()}

    def staged(name):
        def step(*args, **given):
            made = originals[name](*args, **given)
            stage(name)
            return made

        return step

    try:
        for name, (module, step) in steps.items():
            setattr(module, step, staged(name))
        job(service, claimed, told)
    finally:
        for name, (module, step) in steps.items():
            setattr(module, step, originals[name])
