"""Speed, measured beside peers; nothing in the tests depends on it."""
