"""run.py's verbs: prepare, then run the right module with the environment's interpreter."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import ROOT, SetupError
from .alone import only_one
from .environment import install, make_venv, venv_python
from .host import find_host, is_obtained, link_pack, obtain, own_host
from .stopping import uninterrupted

TEST_GROUPS = (("tests/core", "tests/training", "tests/headless", "tests/text", "tests/benchmarks"), ("tests/host",))
"""Folders by process: a ComfyUI inside the process and our own packages on sys.path shadow each other."""

_WITH_VALUE = (
    "-k", "-m", "-p", "-c", "-o", "-W", "-n", "-r", "--config-file", "--override-ini", "--pythonwarnings", "--maxfail",
    "--junitxml", "--junit-xml", "--deselect", "--ignore", "--ignore-glob", "--confcutdir", "--rootdir", "--basetemp",
    "--log-file", "--tb", "--durations", "--numprocesses", "--dist", "--hypothesis-profile",
)  # fmt: skip
"""pytest's options whose value may be a word of its own and may look like a path of the checkout (`-k training`)."""
_NOTHING_COLLECTED = 5  # pytest's exit status
_PATIENCE = 15.0  # seconds that an interrupted child has to stop its own children


def prepare() -> Path:
    """Everything that must be there before a verb runs; returns the host's folder. Quick when nothing changed."""
    if os.environ.get("COMFYUI_PATH", "").strip():
        host = find_host()
    else:
        host = own_host() if is_obtained(own_host()) else obtain(make_venv())
    if install(host):
        print("the environment is ready", flush=True)
    link_pack(host)
    return host


def run_child(command: Sequence[str | Path], cwd: Path = ROOT) -> int:
    """Run a command to its end and return its exit status; Ctrl-C and SIGTERM reach it and it may clean up."""
    process = subprocess.Popen([str(part) for part in command], cwd=cwd)

    def pass_on(*_: object) -> None:
        process.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        status = process.wait()
        return status if status >= 0 else 128 - status
    except KeyboardInterrupt:
        # a Ctrl-C in a terminal has reached the child too; one sent to this process alone has not
        with uninterrupted():
            for ask in (lambda: None, process.terminate, process.kill):
                ask()
                try:
                    process.wait(_PATIENCE)
                    break
                except subprocess.TimeoutExpired:
                    continue
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _test_path(argument: str, root: Path) -> str | None:
    """A pytest argument that names something in the checkout, relative to its root with forward slashes; else None."""
    if argument.startswith("-"):
        return None
    file, *rest = argument.split("::")
    for base in (root, Path.cwd()):
        path = (base / file).resolve()
        if path.exists() and path.is_relative_to(root.resolve()):
            return "::".join([path.relative_to(root.resolve()).as_posix(), *rest])
    return None


def _within(path: str, folder: str) -> bool:
    """Whether one relative path is another or lies in it."""
    return folder == "." or path.split("::")[0] == folder or path.startswith(f"{folder}/")


def pytest_commands(arguments: Sequence[str], root: Path = ROOT) -> list[list[str]]:
    """The pytest command lines (without the interpreter), one a process.

    Arguments that name files or folders, from the checkout or from where they are typed, take the place of the default
    folders, each in its process. The value of an option is not taken for one.

    Raises:
        SetupError: a default folder is missing, or a named file is in none of them.
    """
    named: dict[str, str] = {}
    options: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        path = None if before in _WITH_VALUE else _test_path(argument, root)
        if path is None:
            options.append(argument)
        else:
            named[argument] = path
    for argument, path in named.items():
        if not any(_within(path, folder) or _within(folder, path) for group in TEST_GROUPS for folder in group):
            raise SetupError(f"got {argument}, expected a file or folder in {', '.join(f for g in TEST_GROUPS for f in g)}")
    commands = []
    for group in TEST_GROUPS:
        mine = list(group)
        if named:
            inside = [path for path in named.values() if any(_within(path, folder) for folder in group)]
            around = [folder for folder in group for path in named.values() if path != folder and _within(folder, path)]
            mine = inside + [folder for folder in dict.fromkeys(around) if folder not in inside]
        missing = [path for path in mine if not (root / path.split("::")[0]).exists()]
        if missing:
            raise SetupError(f"got no folder {', '.join(missing)}, expected tests there; check out the missing files")
        if mine:
            # confcutdir: otherwise the root, being a package, is imported as one, which is for ComfyUI to do
            fixed = ["--import-mode=importlib", f"--rootdir={root}", f"--confcutdir={root / 'tests'}"]
            commands.append(["-m", "pytest", *fixed, *mine, *options])
    return commands


def _test(arguments: Sequence[str]) -> int:
    statuses = [run_child([venv_python(), *command]) for command in pytest_commands(arguments)]
    failed = [status for status in statuses if status not in (0, _NOTHING_COLLECTED)]
    if failed:
        return failed[0]
    # a selection (-k) may well leave one process without tests, but not all, and the whole suite neither
    empty = statuses.count(_NOTHING_COLLECTED)
    return _NOTHING_COLLECTED if empty == len(statuses) or (empty and not arguments) else 0


def offer_assets(host: Path, root: Path = ROOT) -> None:
    """Put the bundled reference images and drivers into the host's input folder, where the workflows look for them."""
    folder = host / "input"
    folder.mkdir(exist_ok=True)
    for asset in sorted((root / "assets").iterdir()):
        there = folder / asset.name
        if not there.exists():  # the user's own file of that name stays
            partial = folder / f".{asset.name}.part"
            shutil.copyfile(asset, partial)
            os.replace(partial, there)


def _comfyui(host: Path, arguments: Sequence[str]) -> int:
    offer_assets(host)
    probe = subprocess.run([str(venv_python()), "-m", "headless.device"], cwd=ROOT, capture_output=True, text=True)
    if probe.returncode:
        raise SetupError(f"torch does not start in .venv: {probe.stderr.strip()[-500:]}; delete .venv and run again")
    device, *device_arguments = probe.stdout.split("\n")
    print(f"device: {device}", flush=True)
    known = [] if "--cpu" in arguments else [argument for argument in device_arguments if argument]
    return run_child([venv_python(), host / "main.py", "--auto-launch", *known, *arguments], cwd=host)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))  # the modules run in the checkout, the user typed it elsewhere


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="run.py", allow_abbrev=False, description="From a fresh clone to a result.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, allow_abbrev=False)

    demo = verb("demo", "a reference character performs a driving motion, in a real ComfyUI without a window")
    demo.add_argument("--reference", metavar="IMAGE", type=_absolute, help="the character (default: bundled)")
    demo.add_argument("--drive", metavar="VIDEO|KEYPOINTS.json", type=_absolute, help="the motion (default: bundled)")
    demo.add_argument("--out", metavar="DIR", type=_absolute, default=_absolute("demo_out"), help="default: demo_out")
    verb("test", "all tests; further arguments go to pytest")
    bench = verb("bench", "measure quality, the use of text, the paper's comparisons, motion contexts, speed, or drawing")
    bench.add_argument("what", choices=("quality", "text", "evidence", "context", "speed", "pose_draw"))
    bench.add_argument("--seed", type=int, help="draws another held-out set")
    bench.add_argument("--json", metavar="FILE", type=_absolute, help="write the figures there too")
    bench.add_argument("--pairs", type=int, help="quality, evidence, context: pairs a row")
    bench.add_argument("--rows", nargs="+", metavar="ROW", help="evidence: only these; stands after the benchmark's name")
    bench.add_argument("--variants", nargs="+", metavar="VARIANT", help="quality: only rows of these, pose, pose_retarget, rgb")
    bench.add_argument("--lora", metavar="FILE", type=_absolute, help="quality: measure this LoRA in place of those that ship")
    bench.add_argument("--sheet", metavar="FILE", type=_absolute, help="quality, evidence: write a picture of some pairs there")
    bench.add_argument("--report", metavar="FILE", type=_absolute, help="evidence: put table and picture into this Markdown file")
    bench.add_argument("--plot", metavar="FILE", type=_absolute, help="speed, context: draw the figures")
    bench.add_argument("--speed", metavar="FILE", type=_absolute, help="context: what bench speed wrote, for the plot")
    bench.add_argument("--clips", type=int, help="text: clips that are measured")
    bench.add_argument("--layers", type=int, help="speed: blocks of the large network; all 40 are 28 GB on a GPU")
    verb("comfyui", "open ComfyUI with this pack and its models in place; further arguments go to ComfyUI")
    verb("setup", "only prepare: environment, ComfyUI, link")
    return top


def main(arguments: Sequence[str]) -> int:
    """run.py. Returns the exit status."""
    arguments = list(arguments)
    passed_on: list[str] = []
    if arguments[:1] in (["test"], ["comfyui"]) and arguments[1:2] not in (["-h"], ["--help"]):
        arguments, passed_on = arguments[:1], arguments[1:]
    options = parser().parse_args(arguments)
    try:
        with only_one():
            host = prepare()
        if options.verb == "test":
            return _test(passed_on)
        if options.verb == "comfyui":
            return _comfyui(host, passed_on)
        if options.verb == "setup":
            print(f"ready: {venv_python()} runs ComfyUI in {host}")
            return 0
        module = "headless.demo" if options.verb == "demo" else f"benchmarks.{options.what}"
        # a benchmark refuses what is not for it
        of_bench = ("seed", "json", "pairs", "rows", "variants", "lora", "sheet", "report", "plot", "speed", "clips", "layers")
        names = ("reference", "drive", "out") if options.verb == "demo" else of_bench
        given = [(name, getattr(options, name)) for name in names]
        extra = [
            part
            for name, value in given
            if value is not None
            for part in (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
        ]
        return run_child([venv_python(), "-m", module, *extra])
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
