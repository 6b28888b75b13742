"""Config: TOML layers composed key by key, checked against typed sections, every value knowing where it came from."""
