"""Text that says the motion and the appearance in words, and the fusion of both into one prompt (the paper's text guidance)."""
