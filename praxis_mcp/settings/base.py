"""What every section of the settings is, and how a secret is named in them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of the settings; frozen, and without unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SecretRef(Section):
    """A secret by name; its value is looked up when it is needed, and masked wherever output goes.

    Attributes:
        secret: name; found in the environment, or among the `secrets` of the settings (file or keyring).
    """

    secret: str = Field(min_length=1)


TextOrSecret = str | SecretRef


class OAuthSettings(Section):
    """Credentials for the OAuth 2.1 client credentials grant.

    Attributes:
        client_id: the client's id.
        client_secret: the name of a secret.
        issuer: the identifier of the authorization server that they belong to: tokens are asked of no other.
        scope: what is asked for; None is what the server grants by itself.
    """

    client_id: str
    client_secret: str
    issuer: str = Field(pattern=r"^https?://")
    scope: str | None = None
