"""The documented keys: what may be written where, and what each value must look like."""
