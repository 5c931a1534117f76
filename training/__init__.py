"""Training code for DreamActor-M2 LoRAs. Never imported by the nodes."""
