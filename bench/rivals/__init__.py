"""djactor and other queues side by side: ``make bench-rivals``.  Begin with run.py."""
