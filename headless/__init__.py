"""ComfyUI without a window: starting a server, queueing workflows, and the demo."""
