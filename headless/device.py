"""What the host will compute on. As a program: prints the device, then the host's arguments for it, one a line."""

from __future__ import annotations


def describe() -> tuple[str, list[str]]:
    """The device torch would use, in words, and the arguments that ComfyUI needs for it.

    ComfyUI takes for granted that there is a GPU and does not start without one unless told so.
    """
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return "CPU (torch finds no GPU)", ["--cpu"]
    if found.type == "cuda":
        return f"GPU ({torch.cuda.get_device_name(0)})", []
    return f"GPU ({found.type})", []


if __name__ == "__main__":
    name, arguments = describe()
    print(name, *arguments, sep="\n")
