"""The verb `plan`: what a run will cost, before anything is spent.

    python -m training plan run.yaml --tflops 400 --memory 80

Every number is computed from the network's dimensions by the formulas of `training.plan.costs`; none is a measurement.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="the run's YAML file")
    parser.add_argument("--tflops", type=float, default=400.0, help="effective speed of a device, in 10^12 operations a second")
    parser.add_argument("--memory", type=float, default=80.0, help="memory of a device, in GB (10^9 bytes)")
    parser.add_argument("--max-devices", type=int, default=64, help="the most devices to look at")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(options: argparse.Namespace) -> int:
    from training import config
    from training.plan.report import made, printed

    for name in ("tflops", "memory", "max_devices"):
        if getattr(options, name) <= 0:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name):g}, expected more than 0")
    settings = config.load(options.config)
    plan = made(settings, options.tflops * 1e12, options.memory * 1e9, options.max_devices)
    print(json.dumps(plan, indent=1) if options.json else printed(plan))
    return 0
