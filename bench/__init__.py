"""Benchmarks against dense GEMM and the peers inside torch: `make bench` or `python -m bench --help`."""
