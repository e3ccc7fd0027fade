"""Real servers and real clients, each in its own process or library, all speaking of the same small API."""
