"""The documented keys: sections of the file (`route.py`, `client.py` …) and the kinds of value that they hold.

A kind is a check, a name for the documentation and a JSON Schema: `text.py`, `numbers.py`, `http.py`, `network.py`,
`identity.py`, `files.py`. No message repeats a value, because a secret may have been written at the wrong key.
"""
