"""Clips, encoded once: training reads latents."""
