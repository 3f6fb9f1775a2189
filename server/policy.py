"""What the operator wants served of a model: ``store/models/NAME/policy.json``, written by the API or by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mariana.errors import FileFormatError
from mariana.store import write_whole

POLICY_FILE = "policy.json"

VersionNumber = Annotated[int, Field(ge=1, le=999_999_999)]


class Policy(BaseModel):
    """Which version serves when none is named, and other names for versions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: VersionNumber | None = Field(
        default=None,
        description="the highest version to serve when none is named; null: any",
        examples=[None],
    )
    labels: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")], VersionNumber] = Field(
        default_factory=dict,
        max_length=16,
        description="other names for versions; stable serves when none is named, canary gets a share of that",
        examples=[{"stable": 1, "canary": 2}],
    )
    canary: float = Field(
        default=0,
        ge=0,
        le=1,
        description="share of the requests without a version that canary gets",
        examples=[0.1],
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.canary and "canary" not in self.labels:
            raise ValueError("a share for canary needs the label canary")
        return self

    @classmethod
    def examples(cls) -> dict[str, Any]:
        """Return examples for the documentation."""
        return {
            "pin": {"summary": "version 1 and no other", "value": {"version": 1}},
            "any": {"summary": "the highest that can be loaded", "value": {}},
        }

    def wanted(self) -> set[int]:
        """Return the versions that must stay loaded, however old they are."""
        return {*self.labels.values(), *(() if self.version is None else (self.version,))}


def read_policy(folder: Path) -> Policy:
    """Return the policy of a model's folder; the default one when there is no file.

    Raises:
        FileFormatError: the file is none.
        OSError: it cannot be read.
    """
    path = folder / POLICY_FILE
    try:
        with path.open("rb") as file:
            return Policy.model_validate_json(file.read(1 << 16))
    except FileNotFoundError:
        return Policy()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise FileFormatError(f"{path}: {where or 'it'}: {first['msg']}") from None


def write_policy(folder: Path, policy: Policy) -> None:
    """Publish the policy of a model's folder.

    Raises:
        StoreError: the disk is full or read-only.
    """
    write_whole(folder / POLICY_FILE, policy.model_dump_json(indent=1).encode() + b"\n")
