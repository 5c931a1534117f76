"""The human pass: a local page on which clips are accepted or rejected."""
