"""All emulated vendors together, and what a gateway must be told to use them.

Knows where each vendor listens; writes the overlay that points a config.yaml at the sandbox and the environment that it
reads. Credentials are random for every sandbox and are never printed here.
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
"""Ending of the profile for a vendor's new host, which works as the old one does."""
KYC_HOST = "api.cavach."
"""Beginning of the host of a vendor's second API."""
Routes = Mapping[str, tuple[tuple[str, ...], str | None]]
"""Route → its credentials, and the upstream that the configuration names."""


class Sandbox:
    """The four vendors and the control port. Also an asynchronous context manager.

    Args:
        host: where to listen; a loopback address unless you know better, for the control port asks for no password.
        ports: the first of ten ports in a row (control first, then each vendor's); 0 takes free ones.
        clock: for lives and dates; None is the system's. Delays on the wire are always real.
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
        """Return every port: control, then for each vendor token, API and what else it has."""
        return [self.control, *(port for vendor in self.vendors.values() for port in vendor.listeners().values())]

    @property
    def control_url(self) -> str:
        """The control port, without a trailing slash."""
        return self.control.url

    async def start(self) -> None:
        """Open all ports. Raises OSError when one is taken."""
        try:
            await self.control.start()
            for vendor in self.vendors.values():
                await vendor.start()
                vendor.control_url = f"{self.control_url}/vendors/{vendor.name}"
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close all ports and break off what runs."""
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
        """Return YAML for a second `-c` file: only addresses, and whatever top-level keys `more` adds."""
        overlay = {
            "credentials": {name: vendor.overlay() for name, vendor in self.vendors.items()},
            "routes": {name: {"upstream": vendor.base_url} for name, vendor in self.vendors.items()},
            **more,
        }
        return yaml.safe_dump(overlay, sort_keys=False)

    def overlay_for(self, profiles: Mapping[str, str | None], routes: Routes) -> str:
        """Return YAML that points a configuration at the sandbox, with made-up secrets: a file for its owner alone.

        `profiles`: credential → its profile. A credential whose profile has no emulated vendor is left as it is, and so
        are its routes.
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
        """Return the parameters of the vendor's profile; a secret of Hypersign is for one of its services."""
        if vendor is self.hypersign:
            return {"api_secret_key": vendor.credentials["kyc_api_secret_key" if kyc else "api_secret_key"].reveal()}
        return {name: secret.reveal() for name, secret in vendor.credentials.items()}

    def of_profile(self, profile: str | None) -> Vendor | None:
        """Return the vendor that a profile is emulated by; None if there is none."""
        return self.vendors.get((profile or "").removesuffix(SUCCESSOR_HOST))

    def _upstream(self, vendor: Vendor, upstream: str | None) -> str:
        return self.hypersign.kyc_url if vendor is self.hypersign and KYC_HOST in (upstream or "") else vendor.base_url

    def environ(self) -> dict[str, str]:
        """Return the variables that config.yaml reads, `UQUDO_CLIENT_ID` and so on: secrets, in the clear."""
        return {
            f"{vendor.name}_{name}".upper(): value.reveal()
            for vendor in self.vendors.values()
            for name, value in vendor.credentials.items()
        }
