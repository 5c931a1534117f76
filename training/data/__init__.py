"""Clips to train on: videos found, looked through, cut, sized, posed and captioned; and drawn ones."""
