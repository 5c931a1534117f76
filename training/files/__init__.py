"""LoRA files: written for the nodes, looked at, and tried in ComfyUI."""
