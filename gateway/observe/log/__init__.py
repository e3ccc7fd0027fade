"""The log: one processor chain for all events, one writer thread, one line per request."""
