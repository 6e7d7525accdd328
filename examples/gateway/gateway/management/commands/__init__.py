"""``demo`` and ``measure``."""
