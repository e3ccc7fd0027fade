"""Path patterns and path templates. Pure text rules that routes and clients share; knows no route and no client.

`*` matches any characters within a segment, `**` matches anything, `{id}` in a template matches one segment. A server
may read a path differently from us, so `deny` applies if *any* reading of the path matches, and `allow` only if *every*
reading matches (docs/decisions/0012).
"""

from gateway.patterns.readings import is_plain, pattern_mistake, refusal
from gateway.patterns.rules import AllowPatterns, DenyPatterns
from gateway.patterns.templates import Templates

__all__ = ["AllowPatterns", "DenyPatterns", "Templates", "is_plain", "pattern_mistake", "refusal"]
