"""How fast, and against what: `python -m benchmarks [FIGURE,FIGURE...]`; see README.md."""
