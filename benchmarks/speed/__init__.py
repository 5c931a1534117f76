"""What a motion context costs, as ratios: `python run.py bench speed`."""
