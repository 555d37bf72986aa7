"""What `benchmarks.speed.gpu` measures, by what is compared."""
