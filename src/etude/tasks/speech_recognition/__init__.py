"""Speech recognition: recordings in, what is said in them out, with times."""
