"""What a sweep remembers, in SQLite or PostgreSQL."""
