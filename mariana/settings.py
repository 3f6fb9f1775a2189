"""The settings, read once: command-line options, then the environment (``MARIANA_*``), then a TOML file, then defaults."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from mariana.environment import CONFIG_VARIABLE, PREFIX, config_file
from mariana.errors import InvalidInputError


class Settings(BaseSettings):
    """What can be set; each field ``name`` is the environment variable ``MARIANA_NAME``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    store: Path = Field(default=Path("store"), description="folder of the models and indexes")
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    workers: int = Field(default=1, ge=1, le=256, description="processes that serve")
    worker_timeout: float = Field(
        default=30.0,
        ge=1,
        le=86400,
        description="seconds without a sign of life after which a worker is replaced; while it loads, ten times as many",
    )
    threads: int = Field(
        default=1, ge=1, le=64, description="threads that share a large prediction; each process has its own"
    )
    isa: str | None = Field(
        default=None,
        description="highest instruction set to use: generic, avx2, avx512, avx512vnni, avx512bf16, amx; neon, neondot (unset: the best)",
    )
    precision: Literal["float32", "float32-split"] = Field(
        default="float32",
        description="how float32 models are computed: float32, or float32-split for large batches on AMX",
    )
    backend: Literal["auto", "numpy", "c"] = Field(
        default="auto",
        description="what computes the steps of a training: numpy, or c (fused kernels); auto: c where it is there",
    )
    max_body: int = Field(default=1 << 20, ge=1, description="largest JSON body, bytes")
    max_binary_body: int = Field(default=16 << 20, ge=1, description="largest binary body, bytes")
    max_values: int = Field(default=1_000_000, ge=1, description="largest rows x columns of one prediction")
    batch_window: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="seconds that a large model waits for more rows to run together; 0: it never waits",
    )
    max_inflight: int = Field(
        default=256,
        ge=1,
        description="requests that may be under way in a worker; more are answered with 503",
    )
    max_connections: int = Field(default=1024, ge=1, description="open connections of a worker")
    rate_limit: float = Field(
        default=0.0,
        ge=0,
        description="requests a second that one client may send, 429 above it; 0: any number",
    )
    rate_burst: int = Field(default=100, ge=1, description="requests that a client may send at once")
    head_timeout: float = Field(
        default=5.0, gt=0, le=3600, description="seconds for a request's head to arrive"
    )
    body_timeout: float = Field(
        default=10.0, gt=0, le=3600, description="seconds for a request's body to arrive"
    )
    idle_timeout: float = Field(
        default=5.0, gt=0, le=3600, description="seconds that a connection may stay open between two requests"
    )
    answer_timeout: float = Field(
        default=10.0, gt=0, le=3600, description="seconds in which a client must take something of its answer"
    )
    drain_seconds: float = Field(
        default=0.5,
        ge=0,
        le=3600,
        description="seconds between being told to stop and stopping, in which connections are told to close",
    )
    reload_store: bool = Field(default=True, description="notice new versions and indexes while serving")
    reload_interval: float = Field(
        default=1.0, ge=0.05, le=3600, description="seconds between two looks at the store"
    )
    keep_versions: int = Field(default=4, ge=1, description="newest versions of a model that stay loaded")
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
    sandbox: Literal["off", "on", "auto"] = Field(
        default="off",
        description="once loaded, give up all access but to the store (landlock); on: refuse to start where the kernel cannot",
    )
    telemetry: Literal["off", "on"] = Field(
        default="off",
        description="send OpenTelemetry traces and metrics, as the variables OTEL_* say; needs the extra otel",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="origins that browsers may call from, comma-separated; none by default"
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="addresses or networks of proxies whose X-Forwarded-For says who a client is, comma-separated; none by default",
    )
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        default="info", description="what the server logs; debug shows uvicorn's own lines too"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="how a line of the log looks")
    access_log: bool = Field(default=False, description="log each request")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from, the strongest first."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, InitSettingsSource(settings_cls, _file_settings())

    @field_validator("cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            try:
                ipaddress.ip_network(part)
            except ValueError as error:
                raise ValueError(
                    f"{error}: give addresses or networks, such as 127.0.0.1, 10.0.0.0/8"
                ) from None
        return value


def _file_settings() -> dict[str, Any]:
    path = config_file()
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise InvalidInputError(
            f"settings file {path}: {error.strerror}; {CONFIG_VARIABLE} names it"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"settings file {path} is not TOML: {error}") from None
    for name in values:
        if name not in Settings.model_fields:
            known = ", ".join(Settings.model_fields)
            raise InvalidInputError(f"settings file {path}: unknown setting {name!r}; there are: {known}")
    return values


def source(name: str) -> str:
    """Return where a setting that no option gives comes from: environment, file or default."""
    if os.environ.get(PREFIX + name.upper()):
        return "environment"
    return "file" if name in _file_settings() else "default"


def unknown_variables() -> list[str]:
    """Return a sentence for each variable of the environment that looks like a setting and is none."""
    from difflib import get_close_matches  # noqa: PLC0415 - for those few who read settings, not for all who load

    known = {PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_VARIABLE}
    found = []
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else "; mariana config lists them"
            found.append(f"{name} is no setting{hint}")
    return found


def load_settings(**options: Any) -> Settings:
    """Return the settings in force: the options given, then the environment, then the file, then the defaults.

    Raises:
        InvalidInputError: a value does not fit, or the file cannot be read; the message names the setting, the
            values that are allowed, and not the value.
    """
    try:
        return Settings(**options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])
        if name in options:
            where = f"option {name}"
        elif source(name) == "file":
            where = f"settings file {config_file()}, {name}"
        else:
            where = f"{PREFIX}{name.upper()}"
        meaning = Settings.model_fields[name].description
        raise InvalidInputError(f"{where}: {first['msg']}; it means: {meaning}") from None
