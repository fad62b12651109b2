"""Who is calling (tokens, identities) and which calls each may make."""
