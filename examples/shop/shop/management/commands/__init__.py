"""``demo`` and ``ledger``."""
