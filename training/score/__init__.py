"""Grades for synthesized clips, and the choice by them."""
