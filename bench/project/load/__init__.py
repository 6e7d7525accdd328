"""The app of the benchmarks' project: a table, and classes of actors."""
