"""The verb `ablate`: every run of a recipe, one after the other.

    python -m training ablate training/recipes/marionette.yaml              # all of them
    python -m training ablate training/recipes/marionette.yaml --run pose_full
    python -m training ablate training/recipes/marionette.yaml --list       # the commands, without running them

A recipe names runs: each has the verbs that it takes, and what its file says over the recipe's `base`. `{out}` in any value is
the recipe's folder. A run that was finished is left alone, one that was stopped goes on; runs may read what earlier ones made.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headless.atomic import atomic
from training import config
from training.errors import UserError

CONFIG_VERBS = ("data", "cache", "train", "synthesize", "score", "filter")
DONE = "finished.txt"
ROOT = Path(__file__).resolve().parents[1]


class Run(BaseModel):
    """`needs`: runs that come first. `config`: over the recipe's base."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verbs: tuple[str, ...] = Field(min_length=1)
    needs: tuple[str, ...] = ()
    config: dict[str, Any] = {}


class Recipe(BaseModel):
    """`base`: what every run's file begins with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path
    base: dict[str, Any] = {}
    runs: dict[str, Run]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a recipe's YAML file, see training/recipes/")
    parser.add_argument("--run", action="append", metavar="NAME", help="only this run and those that it needs; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the commands instead of running them")
    parser.add_argument("--out", type=Path, help="another folder than the recipe's")


def load(path: Path, out: Path | None = None) -> Recipe:
    """A recipe. Raises UserError that names what is wrong in it."""
    try:
        found = Recipe.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except FileNotFoundError:
        raise UserError(f"there is no {path}; training/recipes/ has some") from None
    except (ValidationError, yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no recipe: {error}") from error
    recipe = found if out is None else found.model_copy(update={"out": out})
    for name, run in recipe.runs.items():
        unknown = [verb for verb in run.verbs if verb not in CONFIG_VERBS]
        if unknown:
            raise UserError(f"{path}: run {name} has the verb {unknown[0]!r}, expected {', '.join(CONFIG_VERBS)}")
        missing = [need for need in run.needs if need not in recipe.runs]
        if missing:
            raise UserError(f"{path}: run {name} needs {missing[0]!r}, which is not there; runs: {', '.join(recipe.runs)}")
        settings_of(recipe, name)
    return recipe


def _placed(value: Any, out: Path) -> Any:
    if isinstance(value, str):
        return value.replace("{out}", out.as_posix())
    if isinstance(value, dict):
        return {key: _placed(one, out) for key, one in value.items()}
    return [_placed(one, out) for one in value] if isinstance(value, list) else value


def folder_of(recipe: Recipe, name: str) -> Path:
    """A run's own folder."""
    return recipe.out / name


def values_of(recipe: Recipe, name: str) -> dict[str, Any]:
    """What a run's file says."""
    values = config.merged(recipe.base, recipe.runs[name].config)
    return _placed(values, recipe.out) | {"out": folder_of(recipe, name).as_posix()}


def settings_of(recipe: Recipe, name: str) -> config.Config:
    """A run's settings. Raises UserError."""
    return config.from_values(values_of(recipe, name), f"run {name}")


def mark_of(recipe: Recipe, name: str) -> str:
    """What a finished run is the result of, wherever the recipe's folder is: its own settings and verbs, the marks of the runs
    that it needs, and the weights and workflows that it names. Raises UserError when one of those is missing."""
    run = recipe.runs[name]
    values = config.merged(recipe.base, run.config)
    lines = [yaml.safe_dump(values, sort_keys=False), f"verbs: {' '.join(run.verbs)}"]
    for need in run.needs:
        lines.append(f"{need}: {hashlib.sha256(mark_of(recipe, need).encode()).hexdigest()}")
    for section, key in (("backbone", "path"), ("synthesize", "lora"), ("synthesize", "workflow"), ("train", "init_lora")):
        named = values.get(section, {}).get(key)
        if named and "{out}" not in named and not Path(named).is_dir():
            if not (ROOT / named).is_file():
                raise UserError(f"run {name}: there is no {ROOT / named}, which {section}.{key} names")
            lines.append(f"{named}: {hashlib.sha256((ROOT / named).read_bytes()).hexdigest()}")
    return "\n".join(lines) + "\n"


def is_finished(recipe: Recipe, name: str) -> bool:
    """Whether a run is there as the recipe has it now."""
    mark = folder_of(recipe, name) / DONE
    return mark.is_file() and mark.read_text("utf-8") == mark_of(recipe, name)


def ordered(recipe: Recipe, names: list[str]) -> list[str]:
    """The runs and all that they need, each after what it needs. Raises UserError for a circle or an unknown name."""
    done: list[str] = []

    def add(name: str, above: tuple[str, ...]) -> None:
        if name not in recipe.runs:
            raise UserError(f"there is no run {name!r} in the recipe; runs: {', '.join(recipe.runs)}")
        if name in above:
            raise UserError(f"runs need each other in a circle: {' -> '.join((*above, name))}")
        for need in recipe.runs[name].needs:
            add(need, (*above, name))
        if name not in done:
            done.append(name)

    for name in names:
        add(name, ())
    return done


def main(options: argparse.Namespace) -> int:
    recipe = load(options.recipe, options.out)
    chosen = ordered(recipe, options.run or list(recipe.runs))
    for name in chosen:
        folder = folder_of(recipe, name)
        file = folder / "run.yaml"
        commands = [[sys.executable, "-m", "training", verb, str(file)] for verb in recipe.runs[name].verbs]
        if options.list:
            where = "" if options.out is None else f" --out {options.out}"
            print(f"# {name}\npython -m training ablate {options.recipe} --run {name}{where}")
            continue
        if is_finished(recipe, name):
            print(f"{name}: finished", flush=True)
            continue
        mark = folder / DONE
        if mark.is_file():
            raise UserError(
                f"{folder} was made by another version of its run, or of what it needs or reads; delete it, or name another folder "
                f"with --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(values_of(recipe, name), sort_keys=False), "utf-8")
        for command in commands:
            print(f"{name}: {command[3]}", flush=True)
            status = subprocess.run(command).returncode
            if status:
                print(f"error: {name}: {command[3]} ended with status {status}; see above, then run this again", file=sys.stderr)
                return status
        with atomic(mark) as partial:
            partial.write_text(mark_of(recipe, name), "utf-8")
    return 0
