"""All emulated vendors together, and the configuration of a gateway that uses them.

Writes the overlay that makes a config.yaml use the sandbox, and the environment for it. Credentials are random for
every sandbox, and this module never prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import yaml

from gateway.sandbox.akiba import Akiba
from gateway.sandbox.control import Control
from gateway.sandbox.hypersign import Hypersign
from gateway.sandbox.idfy import Idfy
from gateway.sandbox.ledger import Time
from gateway.sandbox.listener import Listener
from gateway.sandbox.uqudo import Uqudo

if TYPE_CHECKING:
    from types import TracebackType

    from gateway.model import Clock
    from gateway.sandbox.vendor import Vendor


SUCCESSOR_HOST = "-signicat"
"""Suffix of the profile for a vendor's new host, which works like the old one."""
KYC_HOST = "api.cavach."
"""Prefix of the host of a vendor's second API."""
Routes = Mapping[str, tuple[tuple[str, ...], str | None]]
"""The credentials of each route, and its upstream in the configuration."""


class Sandbox:
    """The four vendors and the control port. Also an asynchronous context manager.

    Args:
        host: the address to listen on; normally a loopback address, because the control port has no password.
        ports: the first of ten consecutive ports (control first, then each vendor's); 0 chooses free ones.
        clock: for lives and dates; None is the system's. Delays of answers are always in real time.
    """

    def __init__(self, host: str = "127.0.0.1", ports: int = 0, clock: Clock | None = None) -> None:
        time = Time(clock)
        self.hypersign = Hypersign(time, host)
        self.akiba = Akiba(time, host)
        self.uqudo = Uqudo(time, host)
        self.idfy = Idfy(time, host)
        everyone: tuple[Vendor, ...] = (self.hypersign, self.akiba, self.uqudo, self.idfy)
        self.vendors: dict[str, Vendor] = {vendor.name: vendor for vendor in everyone}
        self.control = Listener(Control(self.vendors).app(), host)
        for number, listener in enumerate(self.listeners()):
            listener.port = ports + number if ports else 0

    def listeners(self) -> list[Listener]:
        """Return all ports: control first, then those of each vendor."""
        return [self.control, *(port for vendor in self.vendors.values() for port in vendor.listeners().values())]

    @property
    def control_url(self) -> str:
        """The control port, without a trailing slash."""
        return self.control.url

    async def start(self) -> None:
        """Open all ports. Raises OSError if one is in use."""
        try:
            await self.control.start()
            for vendor in self.vendors.values():
                await vendor.start()
                vendor.control_url = f"{self.control_url}/vendors/{vendor.name}"
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close all ports and abort running requests."""
        for vendor in self.vendors.values():
            await vendor.stop()
        await self.control.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def overlay(self, **more: Any) -> str:
        """Return YAML for a second `-c` file: addresses, and the top-level keys of `more`."""
        overlay = {
            "credentials": {name: vendor.overlay() for name, vendor in self.vendors.items()},
            "routes": {name: {"upstream": vendor.base_url} for name, vendor in self.vendors.items()},
            **more,
        }
        return yaml.safe_dump(overlay, sort_keys=False)

    def overlay_for(self, profiles: Mapping[str, str | None], routes: Routes) -> str:
        """Return YAML that makes a configuration use the sandbox, with made-up secrets; only its owner may read it.

        `profiles` has the profile of each credential. A credential whose vendor is not emulated stays as it is, and so
        do its routes.
        """
        emulated = {name: vendor for name, profile in profiles.items() if (vendor := self.of_profile(profile))}
        kyc = {name for names, upstream in routes.values() if KYC_HOST in (upstream or "") for name in names[:1]}
        overlay: dict[str, Any] = {
            "credentials": {
                name: vendor.overlay() | self._secrets(vendor, kyc=name in kyc) for name, vendor in emulated.items()
            },
            "routes": {
                name: {"upstream": self._upstream(emulated[names[0]], upstream)}
                for name, (names, upstream) in routes.items()
                if names and names[0] in emulated
            },
        }
        return yaml.safe_dump(overlay, sort_keys=False)

    def _secrets(self, vendor: Vendor, *, kyc: bool) -> dict[str, str]:
        """Return the parameters of the vendor's profile. Hypersign has a secret for each of its services."""
        if vendor is self.hypersign:
            return {"api_secret_key": vendor.credentials["kyc_api_secret_key" if kyc else "api_secret_key"].reveal()}
        return {name: secret.reveal() for name, secret in vendor.credentials.items()}

    def of_profile(self, profile: str | None) -> Vendor | None:
        """Return the emulated vendor of a profile; None if there is none."""
        return self.vendors.get((profile or "").removesuffix(SUCCESSOR_HOST))

    def _upstream(self, vendor: Vendor, upstream: str | None) -> str:
        return self.hypersign.kyc_url if vendor is self.hypersign and KYC_HOST in (upstream or "") else vendor.base_url

    def environ(self) -> dict[str, str]:
        """Return the variables of config.yaml, such as `UQUDO_CLIENT_ID`, with their secrets as plain text."""
        return {
            f"{vendor.name}_{name}".upper(): value.reveal()
            for vendor in self.vendors.values()
            for name, value in vendor.credentials.items()
        }
