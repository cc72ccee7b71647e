"""The frameworks of the side-by-side benchmarks.

Each module has ``make(workload, parameters, form)``, which gives a Trainer, or None for a workload
that the framework has no form of.
"""
