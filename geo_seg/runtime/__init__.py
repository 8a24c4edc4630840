"""The process and its files: atomic writes, locks, ranks, memory, console."""
