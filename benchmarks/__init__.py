"""What `make bench` runs; the results are in docs/benchmarks.md."""
