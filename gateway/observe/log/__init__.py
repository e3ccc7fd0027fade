"""The log: one chain for every event, one thread that writes it, one line per request."""
