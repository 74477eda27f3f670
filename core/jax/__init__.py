"""Training by JAX (train.runtime.backend = "jax"): the optimizer step of a run, for TPUs. All else of a run is torch's code (extra: jax)."""
