"""The command line: `python -m training VERB ...`.

Each verb is a module with `arguments(parser)` and `main(options)`; it is imported when it is asked for.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import sys
from collections.abc import Sequence

from training.errors import FULL, UserError

VERBS = {
    "plan": ("training.plan", "what a run will cost: tokens, memory, disk, time; nothing is spent"),
    "data": ("training.data.build", "videos to checked clips with poses and captions, and a manifest of them"),
    "cache": ("training.latents.build", "clips to latents and text embeddings"),
    "train": ("training.train.run", "a LoRA from a cache; also under accelerate launch"),
    "synthesize": ("training.synthesize.run", "pseudo pairs: the motion of source clips on other characters (Eq. 3)"),
    "score": ("training.score.run", "grades for synthesized clips"),
    "filter": ("training.score.filter", "the clips whose grades are good enough"),
    "review": ("training.review.run", "a local page to accept or reject clips by eye"),
    "export": ("training.files.export", "the LoRA of a run as the file that the nodes load"),
    "inspect": ("training.files.inspect", "what a LoRA file says of itself"),
    "validate": ("training.files.validate", "loads a LoRA file through ComfyUI's own code and reports every key"),
    "ablate": ("training.ablate", "the paper's ablation: every variant of a run, one after the other"),
}
"""Verb to its module and what it makes."""
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
BROKEN = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG)
LESS = {
    "train": "train.accumulate: a larger number, up to train.batch, so that fewer samples are held at once, "
    "train.checkpointing: true, backbone.base: fp8 or int8, train.optimizer: adamw8bit, or ",
    "synthesize": "synthesize.batch: 1, or ",
}
"""What a verb needs less memory with."""


def main(arguments: Sequence[str]) -> int:
    """Run one verb. Returns the exit status: 0, 1 for a wrong input or a machine without room, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m training", description="From videos to the LoRAs that the nodes load.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (module, text) in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == chosen:  # the others' modules, and what they import, are not needed
            importlib.import_module(module).arguments(verb)
    options = parser.parse_args(arguments)
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it tells of kernels that are not used here, at every import
    try:
        return int(importlib.import_module(VERBS[options.verb][0]).main(options) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what is saved", file=sys.stderr)
        return 130
    except Exception as error:
        told = of_disk(error) if isinstance(error, OSError) else of_memory(error, options.verb)
        if not told:
            raise
        print(f"error: {told}", file=sys.stderr)
        return 1


def of_disk(error: OSError) -> str:
    """What a disk or folder that will not do means; empty for an error that is of neither."""
    if error.errno not in FULL and (error.filename is None or error.errno not in (*CLOSED, *BROKEN)):
        return ""
    expected = "a file or folder that can be used; look at it"
    if error.errno in FULL:
        expected = "room on the disk; make some, or name another `out`"
    elif error.errno in CLOSED:
        expected = "a place that may be read and written to; see to it, or name another `out`"
    return f"{error.filename or 'a file of the run'}: {error.strerror}, expected {expected}, and give the same command again"


def of_memory(error: Exception, verb: str) -> str:
    """What a GPU that is full means; empty for another error."""
    torch = sys.modules.get("torch")  # whoever did not load it can't have filled a GPU
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return ""
    got = str(error).strip().splitlines()[0]
    return (
        f"the GPU has no memory left ({got}), expected room for what the run holds at once; set {LESS.get(verb, '')}a smaller "
        f"clip.sizes or clip.frames, and see that nothing else uses the GPU; `python -m training plan` says what a run takes"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
