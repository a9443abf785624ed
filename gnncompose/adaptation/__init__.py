"""What tells a deployment that its world has changed."""
