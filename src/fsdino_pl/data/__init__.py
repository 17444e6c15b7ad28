"""Benchmarks, episodes and the way from files to batches."""
