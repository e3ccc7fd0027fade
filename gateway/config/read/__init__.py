"""From files to one tree of values: YAML, `${…}`, profiles. Nothing is checked against the documented keys yet."""
