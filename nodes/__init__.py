"""ComfyUI nodes. Thin: what they do lives in dreamactor_core."""
