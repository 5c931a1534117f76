"""Run by `validate` in a process of its own, in which `comfy` and `nodes` are ComfyUI's: what its LoRA code does with a file.

python keys.py HOST LORA MODEL

Prints one JSON object: keys that it did not load, weights that got a patch, and all weights of the model.
"""

import json
import logging
import sys


class Notes(logging.Handler):
    """Keeps what the host says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main(host: str, lora: str, model: str) -> None:
    """Load both as the host's own nodes do, and look at what became of each key."""
    sys.path.insert(0, host)
    from comfy.cli_args import args

    args.cpu = True
    import comfy.lora
    import comfy.sd
    import comfy.utils

    loaded = comfy.sd.load_diffusion_model(model)
    if loaded is None:
        raise SystemExit(f"ComfyUI does not know the architecture of {model}")
    tensors, metadata = comfy.utils.load_torch_file(lora, safe_load=True, return_metadata=True)
    notes = Notes()
    logging.getLogger().addHandler(notes)
    patched, _ = comfy.sd.load_lora_for_models(loaded, None, tensors, 1.0, 0.0, lora_metadata=metadata)
    logging.getLogger().removeHandler(notes)
    missed = {key for key in tensors for line in notes.lines if line.endswith(f"lora key not loaded: {key}")}
    lost = [line for line in notes.lines if line.startswith("NOT LOADED")]
    prefix = "diffusion_model."
    found = {
        "unmatched": sorted(missed),
        "not_applied": lost,
        "patched": sorted(str(key).removeprefix(prefix) for key in patched.patches),
        "weights": sorted(key.removeprefix(prefix) for key in loaded.model.state_dict() if key.startswith(prefix)),
        "architecture": type(loaded.model).__name__,
    }
    print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
