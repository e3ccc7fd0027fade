"""The keys of TLS on a port that Gatepass serves."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from gateway.config.keys.files import ReadableFile
from gateway.config.keys.grant import ClientCertificateSection
from gateway.config.keys.section import refuse
from gateway.tls import check_authorities


class TlsSection(ClientCertificateSection):
    """TLS on the data port: 1.2 or newer."""

    client_ca: ReadableFile | None = Field(
        None, description="PEM file of authorities: each app must present a certificate that they issued."
    )

    @model_validator(mode="after")
    def authorities_can_be_read(self) -> Self:
        """Load the file now, so that a bad one is reported before the first connection."""
        try:
            if self.client_ca is not None:
                check_authorities(self.client_ca)
        except (OSError, ValueError):
            refuse("client_ca is not a PEM file of certificates")
        return self
