"""Local rewrite rules, by operator, and the sweep that applies them."""
