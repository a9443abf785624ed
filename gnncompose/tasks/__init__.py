"""Tasks: real data, operators and metric; read from bundles, built by the zoo."""
