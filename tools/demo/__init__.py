"""What ``tools/quickstart`` runs: the main job of casfs from end to end, with the real commands."""
