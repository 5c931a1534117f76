"""Pseudo pairs (Eq. 3): the motion of source clips on other characters, made on many devices."""
