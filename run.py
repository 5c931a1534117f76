"""One command from a fresh clone to a result: prepares an environment and a ComfyUI host, then does what was asked.

    python run.py demo [--reference IMAGE] [--drive VIDEO|KEYPOINTS.json] [--out DIR]
    python run.py test [pytest arguments]
    python run.py bench quality [--seed N] [--json FILE] [--pairs N] [--variants VARIANT ...] [--lora FILE] [--sheet FILE]
    python run.py bench text [--seed N] [--json FILE] [--clips N]
    python run.py bench evidence [--seed N] [--json FILE] [--pairs N] [--rows ROW ...] [--sheet FILE] [--report FILE]
    python run.py bench speed [--seed N] [--json FILE] [--plot FILE] [--layers N]
    python run.py bench context [--seed N] [--json FILE] [--pairs N] [--speed FILE --plot FILE]
    python run.py bench pose_draw [--seed N] [--json FILE]
    python run.py comfyui [ComfyUI arguments]
    python run.py setup

COMFYUI_PATH names a ComfyUI checkout to use instead of a downloaded one. DREAMACTOR_TORCH_INDEX names another package
index to take torch from (for example https://download.pytorch.org/whl/cpu).
"""

import sys

# Before anything else, and in a syntax that old interpreters read: they must print this and not a SyntaxError.
if not (3, 11) <= sys.version_info[:2] < (3, 15):
    sys.exit(
        "error: got Python %d.%d, expected 3.11 to 3.14 (the pinned torch has wheels for these). "  # noqa: UP031
        "Install one from python.org and start run.py with it, for example: python3.11 run.py" % sys.version_info[:2]
    )

from bootstrap.verbs import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
