"""Serving compositions, swapping them live, and handing them to other servers."""
