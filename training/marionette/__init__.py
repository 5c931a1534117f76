"""Marionette: a small drawn world with known answers, and the small backbone trained on it."""
