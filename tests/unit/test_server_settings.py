"""Settings: where they come from, what is refused, and that each is documented."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from mariana.cli.config import config
from mariana.errors import InvalidInputError
from mariana.settings import PREFIX, Settings, load_settings, unknown_variables

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARIANA_PORT", "9000")
    monkeypatch.setenv("MARIANA_HOST", "")
    monkeypatch.setenv("MARIANA_CORS_ORIGINS", "https://a.example, https://b.example,")
    settings = load_settings()
    assert (settings.port, settings.host) == (9000, "127.0.0.1")
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert load_settings(port=1).port == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "x"), ("PORT", "70000"), ("WORKERS", "0"), ("LOG_LEVEL", "loud"), ("MAX_BODY", "-1")],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(InvalidInputError, match=f"^{PREFIX}{name}: ") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    assert Settings.model_fields[name.lower()].description in str(caught.value)


def test_config_tells_where_each_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    monkeypatch.setenv("MARIANA_PORT", "9000")
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(config, ["--json"]).output)["settings"]}
    assert list(rows) == list(Settings.model_fields)
    assert (rows["port"]["value"], rows["port"]["source"]) == (9000, "environment")
    assert (rows["host"]["value"], rows["host"]["source"]) == ("127.0.0.1", "default")
    table = CliRunner().invoke(config).output
    assert re.search(r"^MARIANA_PORT +9000 +environment ", table, re.MULTILINE)


def test_a_variable_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARIANA_WORKRES", "2")
    monkeypatch.setenv("MARIANA_QQQQQQQQ", "2")
    found = unknown_variables()
    assert "MARIANA_WORKRES is no setting; did you mean MARIANA_WORKERS?" in found
    assert "MARIANA_QQQQQQQQ is no setting; mariana config lists them" in found
    assert "did you mean MARIANA_WORKERS?" in CliRunner().invoke(config).output


def test_every_setting_is_documented() -> None:
    documented = re.findall(
        r"^\| `(MARIANA_[A-Z_]+)` \| `?([^|`]*)`? \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [name for name, _ in documented] == [PREFIX + name.upper() for name in Settings.model_fields]
    for (_, default), field in zip(documented, Settings.model_fields.values(), strict=True):
        shown = "unset" if field.default in (None, ()) else str(field.default)
        assert default == shown
