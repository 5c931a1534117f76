"""Measurements, one command each: `python run.py bench quality|speed`."""
