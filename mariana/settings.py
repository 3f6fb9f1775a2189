"""The settings, read once from the environment (``MARIANA_*``); command-line options win over them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """What can be set; each field ``name`` is the environment variable ``MARIANA_NAME``."""

    model_config = SettingsConfigDict(env_prefix="MARIANA_", frozen=True, extra="ignore")

    store: Path = Field(default=Path("store"), description="folder of the models and indexes")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    isa: str | None = Field(
        default=None, description="highest instruction set to use: generic, avx2, avx512 (unset: the best)"
    )
    max_body: int = Field(default=1 << 20, ge=1, description="largest JSON body, bytes")
    max_binary_body: int = Field(default=16 << 20, ge=1, description="largest binary body, bytes")
    max_values: int = Field(default=1_000_000, ge=1, description="largest rows x columns of one prediction")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="origins that browsers may call from, comma-separated; none by default"
    )
    admin_token: SecretStr | None = Field(
        default=None, description="token for writes; unset: writes are refused"
    )
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        default="info", description="what the server logs"
    )
