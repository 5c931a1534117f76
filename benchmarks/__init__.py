"""Measurements, one command each: `python run.py bench quality|text|speed|pose_draw`."""
