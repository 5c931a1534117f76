"""The method itself: layout, clips, poses and the LoRA contract. No ComfyUI and no training stack in here."""
