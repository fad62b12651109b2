"""The command `windlass`: one file per noun, and what they share (`invocation`, `render`, `follow`)."""
