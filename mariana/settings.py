"""The settings, read once from the environment (``MARIANA_*``); command-line options win over them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mariana.errors import InvalidInputError

PREFIX = "MARIANA_"


class Settings(BaseSettings):
    """What can be set; each field ``name`` is the environment variable ``MARIANA_NAME``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    store: Path = Field(default=Path("store"), description="folder of the models and indexes")
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    workers: int = Field(default=1, ge=1, le=256, description="processes that serve")
    isa: str | None = Field(
        default=None,
        description="highest instruction set to use: generic, avx2, avx512, avx512vnni, avx512bf16 (unset: the best)",
    )
    precision: Literal["float32", "float32-split"] = Field(
        default="float32",
        description="how float32 models are computed: float32, or float32-split for large batches on AMX",
    )
    max_body: int = Field(default=1 << 20, ge=1, description="largest JSON body, bytes")
    max_binary_body: int = Field(default=16 << 20, ge=1, description="largest binary body, bytes")
    max_values: int = Field(default=1_000_000, ge=1, description="largest rows x columns of one prediction")
    learn: bool = Field(default=False, description="learn from what people choose (on, off)")
    learn_half_life: float | None = Field(
        default=None,
        ge=0.01,
        le=36_500,
        description="days after which what was learnt counts half (unset: what each index has, 30 at first)",
    )
    admin_token: SecretStr | None = Field(
        default=None, description="lets its bearer load, unload and write; unset: nobody may"
    )
    admin_tokens_file: Path | None = Field(
        default=None,
        description="file of SHA-256 hashes of further admin tokens, one a line; read again on change",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="origins that browsers may call from, comma-separated; none by default"
    )
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        default="info", description="what the server logs; debug shows each request"
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


def load_settings(**options: Any) -> Settings:
    """Return the settings in force: the options given, then the environment, then the defaults.

    Raises:
        InvalidInputError: a value does not fit; the message names its variable, and not the value.
    """
    try:
        return Settings(**options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])
        where = f"option {name}" if name in options else f"{PREFIX}{name.upper()}"
        meaning = Settings.model_fields[name].description
        raise InvalidInputError(f"{where}: {first['msg']}; it means: {meaning}") from None
