"""Decides which connections a set of NetworkPolicies allows, by the rules of networking.k8s.io/v1.

https://kubernetes.io/docs/concepts/services-networking/network-policies/: a pod that no policy selects accepts
everything; otherwise a connection passes if one rule of one policy allows it. A peer with both selectors means pods
with these labels in namespaces with those; `podSelector` alone means the policy's own namespace; an `ipBlock` means
addresses outside the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

OPERATORS: Mapping[str, Callable[[str | None, list[str]], bool]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
}


@dataclass(frozen=True)
class Pod:
    """A pod of the cluster."""

    labels: Mapping[str, str]
    namespace: str
    namespace_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def namespace_tags(self) -> dict[str, str]:
        """The labels of its namespace, including the one that Kubernetes adds."""
        return {"kubernetes.io/metadata.name": self.namespace, **self.namespace_labels}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a LabelSelector matches."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        OPERATORS[each["operator"]](labels.get(each["key"]), each.get("values", []))
        for each in selector.get("matchExpressions", [])
    )


def allows(
    policies: Iterable[dict[str, Any]], pod: Pod, direction: str, other: Pod | str, port: int, *, protocol: str = "TCP"
) -> bool:
    """Return whether `pod` may be reached by (`Ingress`) or reach (`Egress`) another pod or an address."""
    side, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    ours = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and selects(policy["spec"]["podSelector"], pod.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    return not ours or any(
        (not rule.get("ports") or any(_port(each, port, protocol) for each in rule["ports"]))
        and (not rule.get(peers) or any(_peer(each, other, policy["metadata"]["namespace"]) for each in rule[peers]))
        for policy in ours
        for rule in policy["spec"].get(side, [])
    )


def _port(rule: dict[str, Any], port: int, protocol: str) -> bool:
    return bool(rule.get("protocol", "TCP") == protocol and rule.get("port", port) == port)


def _peer(peer: dict[str, Any], other: Pod | str, namespace: str) -> bool:
    if isinstance(other, str):
        block, address = peer.get("ipBlock"), ip_address(other)
        return (
            block is not None
            and address in ip_network(block["cidr"])
            and not any(address in ip_network(hole) for hole in block.get("except", []))
        )
    if "ipBlock" in peer:
        return False
    there = peer.get("namespaceSelector")
    same = other.namespace == namespace if there is None else selects(there, other.namespace_tags)
    return same and selects(peer.get("podSelector", {}), other.labels)
