"""Settings come from the environment, and a wrong one is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import SettingsError
from service.settings import Settings, available_cpus, load_settings, unknown_variables


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove settings of whoever runs the tests."""
    for field in Settings.model_fields:
        monkeypatch.delenv(f"COGAN_{field.upper()}", raising=False)
    monkeypatch.delenv("PORT", raising=False)


@pytest.mark.parametrize("variable", ["COGAN_PORT", "PORT"])
def test_port_has_two_names(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """The port is read from COGAN_PORT, and from PORT, which platforms set."""
    monkeypatch.setenv(variable, "9000")
    assert load_settings().port == 9000


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("COGAN_PORT", "http"),
        ("COGAN_PORT", "99999"),
        ("PORT", "8000/tcp"),
        ("COGAN_PROVIDER", "tpu"),
        ("COGAN_THREADS", "0"),
        ("COGAN_DEADLINE_S", "-1"),
        ("COGAN_MAX_QUEUE", "8"),
        ("COGAN_TRUSTED_PROXIES", "10.0.0.0/8, proxy"),
        ("COGAN_TRUSTED_PROXIES", "10.0.0.0/8,*"),  # which uvicorn would take for an address
        ("COGAN_CORS_ORIGINS", "https://a.example,*"),
        ("COGAN_MODELS_DIR", ""),
        ("COGAN_MODELS_DIR", "s3:/bucket/models"),
        ("COGAN_MODELS_DIR", "file:/models"),
        ("COGAN_MODELS_DIR", "file://tmp/models"),
        ("COGAN_MODELS_DIR", "~/models"),
        ("COGAN_MODELS_DIR", " s3://bucket/models"),
        ("COGAN_CORS_ORIGINS", "example.com"),
        ("COGAN_CORS_ORIGINS", "https://example.com:443"),  # a browser leaves the default port out
        ("COGAN_CORS_ORIGINS", "https://Example.com"),
        ("COGAN_CORS_ORIGINS", "https://münchen.de"),
        ("COGAN_CORS_ORIGINS", "https://example.com/"),
        ("COGAN_FRAME_ORIGINS", "https://a.example;script-src"),
        ("COGAN_FRAME_ORIGINS", "https://münchen.de"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """One line says which variable is wrong, what it was, and what is allowed."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable} = '?{re.escape(value)}'?.*[a-z]") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("COGAN_") == variable.count("COGAN_")


def test_an_address_of_kubernetes_gets_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service named cogan sets COGAN_PORT in every pod of its namespace."""
    monkeypatch.setenv("COGAN_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(SettingsError, match=r"^COGAN_PORT = 'tcp://.+: false"):
        load_settings()


def test_settings_are_frozen() -> None:
    """Nothing changes a setting after the start."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_every_setting_has_a_sentence() -> None:
    """An operator learns from the field itself what it does."""
    assert all((field.description or "").endswith(".") for field in Settings.model_fields.values())


@pytest.mark.parametrize(("limit", "cpus"), [("100000 100000", 1), ("50000 100000", 1), ("junk", None)])
def test_threads_follow_the_containers_limit(tmp_path: Path, limit: str, cpus: int | None) -> None:
    """A container's processor quota bounds the threads; without one, the affinity does."""
    file = tmp_path / "cpu.max"
    file.write_text(limit)
    assert available_cpus(file) == (cpus or available_cpus(tmp_path / "none"))


def test_the_processors_are_used_up_to_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are as many as processors, but few; on a GPU one, which has the model in its memory.

    There runs take turns: a second thread prepares and encodes meanwhile, and more would part small batches.
    """
    for cpus, processes in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr("service.settings.available_cpus", lambda cpus=cpus: cpus)
        assert Settings().processes == processes
        assert Settings().threads == cpus // processes
    alone, on_gpu = Settings(processes=1), Settings(provider="cuda")
    assert (alone.threads, on_gpu.processes, on_gpu.threads) == (64, 1, 2)
    assert Settings(processes=7).processes == 7


def test_runs_are_small_on_a_gpu() -> None:
    """Every run of a GPU is padded to the largest, which is smaller there; a number that is set holds."""
    largest = [Settings(**chosen).max_batch for chosen in ({}, {"provider": "cuda"}, {"max_batch": 7})]
    assert largest == [64, 16, 7]


def test_networks_and_origins_may_be_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are separated by commas, addresses of either family; a star allows all, and stands alone."""
    monkeypatch.setenv("COGAN_TRUSTED_PROXIES", "10.0.0.0/8, ::1")
    monkeypatch.setenv("COGAN_CORS_ORIGINS", "https://xn--mnchen-3ya.de, http://localhost:3000, http://[::1]:8080")
    assert load_settings().trusted_proxies == "10.0.0.0/8,::1"
    assert load_settings().cors_origins == "https://xn--mnchen-3ya.de,http://localhost:3000,http://[::1]:8080"
    monkeypatch.setenv("COGAN_TRUSTED_PROXIES", "")  # nobody
    assert load_settings().trusted_proxies == ""
    monkeypatch.setenv("COGAN_CORS_ORIGINS", "*")
    assert load_settings().cors_origins == "*"


def test_an_origin_is_compared_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page has an origin with a star, so that it would silently allow none; what may frame a page has patterns."""
    monkeypatch.setenv("COGAN_CORS_ORIGINS", "https://*.example")
    with pytest.raises(SettingsError, match=r"COGAN_CORS_ORIGINS = .+ is not an origin"):
        load_settings()
    monkeypatch.delenv("COGAN_CORS_ORIGINS")
    monkeypatch.setenv("COGAN_FRAME_ORIGINS", "https://*.example")
    assert load_settings().frame_origins == "https://*.example"


def test_an_empty_path_is_as_if_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose sets a variable without a value to nothing, which is not the working directory."""
    for variable in ("COGAN_MODELS_CACHE", "COGAN_API_KEYS_FILE"):
        monkeypatch.setenv(variable, "")
    settings = load_settings()
    assert (settings.models_cache, settings.api_keys_file) == (None, None)


def test_the_url_of_a_file_may_have_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as fsspec takes it, which knows neither a host nor percent-encoding."""
    monkeypatch.setenv("COGAN_MODELS_DIR", "file://localhost/my%20models")
    assert load_settings().models_dir == "file:///my models"


def test_model_control_is_off_unless_it_is_turned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody loads or unloads models by request unless the operator wants it."""
    assert not load_settings().model_control
    monkeypatch.setenv("COGAN_MODEL_CONTROL", "true")
    assert load_settings().model_control


def test_the_health_port_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same port twice is refused; port 0 is a free one each time."""
    monkeypatch.setenv("PORT", "8123")
    monkeypatch.setenv("COGAN_HEALTH_PORT", "8123")
    with pytest.raises(SettingsError, match=r"^COGAN_HEALTH_PORT = 8123 is PORT"):
        load_settings()
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("COGAN_HEALTH_PORT", "0")
    assert load_settings().health_port == 0


def test_unknown_settings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable would set nothing; those of training are set for the whole machine."""
    monkeypatch.setenv("COGAN_RATE_LIMITS", "5")
    for name, value in (("DATA", "data"), ("ACCELERATOR", "cpu"), ("PRECISION", "32-true")):
        monkeypatch.setenv(f"COGAN_{name}", value)
    assert unknown_variables() == ["COGAN_RATE_LIMITS"]
