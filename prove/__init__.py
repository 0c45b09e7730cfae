"""Proofs of what the suite promises about kills, faults, input and load: `make prove`.

They are neither tests nor benchmarks: they go through every system call that a plugin makes, or a million
inputs, and take hours; their result is a table, kept in docs/reliability.md. The tests in
integration/test_prove_*.py run samples.
"""
