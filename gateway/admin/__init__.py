"""The ops port. Knows statuses, metrics and the model; serves no secret and changes nothing."""

from gateway.admin.health import check_health
from gateway.admin.server import AdminServer

__all__ = ["AdminServer", "check_health"]
