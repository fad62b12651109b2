"""The command `windlass`: one file per noun, and what they share (`session`, `render`, `follow`)."""
