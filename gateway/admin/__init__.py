"""The ops port. Knows statuses, metrics and the model; serves no secret and changes nothing."""

from gateway.admin.server import AdminServer

__all__ = ["AdminServer"]
