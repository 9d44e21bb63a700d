"""The benchmarks that `make bench` runs; their results are in docs/benchmarks.md."""
