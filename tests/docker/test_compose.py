"""The compose files start a stack whose parts find one another and have no more rights than they need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from service.settings import Settings

Document = dict[str, Any]


def test_images_are_pinned(compose: Document, proxy_compose: Document) -> None:
    """An image that is not built here has a full version as its tag."""
    services = compose["services"] | {"proxy": proxy_compose["services"]["proxy"]}
    images = [service["image"] for service in services.values() if "build" not in service]
    assert images
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in images)


def test_every_container_drops_its_rights(compose: Document, proxy_compose: Document) -> None:
    """No container keeps a capability or may gain one."""
    for name, service in [*compose["services"].items(), ("proxy", proxy_compose["services"]["proxy"])]:
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_the_service_cannot_write_outside_tmp(compose: Document) -> None:
    """Its file system and its models are read-only, and /tmp is in memory."""
    service = compose["services"]["service"]
    assert service["read_only"] is True
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert all(mount.endswith(":ro") for mount in service["volumes"])


def test_only_the_service_is_reached_from_other_machines(compose: Document) -> None:
    """Every other published port is bound to the loopback address."""
    for name, service in compose["services"].items():
        for port in service.get("ports", ()):
            assert name == "service" or port.startswith("127.0.0.1:"), (name, port)


def test_a_stop_lets_accepted_work_finish(compose: Document) -> None:
    """The grace period is longer than the drain delay and the deadline of a request together."""
    settings = Settings.model_fields
    longest = settings["drain_delay_s"].default + settings["deadline_s"].default
    grace = re.fullmatch(r"(\d+)s", compose["services"]["service"]["stop_grace_period"])
    assert grace
    assert int(grace[1]) > longest


def test_compose_sets_settings_that_exist(compose: Document, gpu_compose: Document, proxy_compose: Document) -> None:
    """A COGAN_ variable in a compose file is a field of the service's settings."""
    for document in (compose, gpu_compose, proxy_compose):
        for name in document["services"]["service"].get("environment", {}):
            assert name.removeprefix("COGAN_").lower() in Settings.model_fields, name


def test_the_gpu_override_changes_services_that_exist(compose: Document, gpu_compose: Document) -> None:
    """The override builds the GPU image of the same services and reserves a device for each."""
    assert gpu_compose["services"].keys() <= compose["services"].keys()
    assert gpu_compose["services"]["service"]["build"]["args"] == {"PROVIDER": "gpu"}
    for service in gpu_compose["services"].values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia"
        assert device["capabilities"] == ["gpu"]


def test_behind_the_proxy_no_replica_is_published(compose: Document, proxy_compose: Document) -> None:
    """Every client comes through nginx, so its address is believed."""
    service = proxy_compose["services"]["service"]
    assert "ports" in service
    assert service["ports"] is None
    assert service["deploy"]["replicas"] == 3
    assert service["environment"]["COGAN_TRUSTED_PROXIES"] == "*"
    assert compose["services"]["service"]["ports"]  # which the override drops


def test_the_proxy_fits_the_service(compose: Document, root: Path) -> None:
    """Port, body size and deadline of nginx.conf are those of the service, and what it writes is below /tmp."""
    text = (root / "docker/nginx/nginx.conf").read_text()
    (port,) = re.findall(r"proxy_pass http://\$replicas:(\d+);", text)
    assert port == compose["services"]["service"]["environment"]["COGAN_PORT"]
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", text)
    assert int(megabytes) * 2**20 == Settings.model_fields["max_upload_bytes"].default
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", text)
    assert int(seconds) > Settings.model_fields["deadline_s"].default
    assert re.findall(r"^\s*(?:pid|\w+_temp_path) (/\w+)/", text, re.MULTILINE) == ["/tmp"] * 6


def test_training_starts_only_when_asked_for(compose: Document) -> None:
    """`docker compose up` neither builds nor starts the training image."""
    assert compose["services"]["training"]["profiles"] == ["training"]


def test_training_writes_only_where_results_go(compose: Document, root: Path) -> None:
    """The checkout and the data are read-only; results land in folders of their own on the host."""
    mounts = compose["services"]["training"]["volumes"]
    assert mounts[0] == ".:/app:ro"
    written = {mount["target"]: mount["source"] for mount in mounts[1:] if not mount.get("read_only")}
    assert written == {f"/app/{name}": f"./{name}" for name in ("runs", "classifiers", "models")}
    ignored = (root / ".gitignore").read_text().splitlines()
    assert {"/runs/", "/classifiers/", "/data/"} <= set(ignored)


def test_mounted_files_of_the_repository_exist(compose: Document, root: Path) -> None:
    """A path below docker/ that a container mounts is there: the engine would make an empty folder of it."""
    mounts = [str(mount) for service in compose["services"].values() for mount in service.get("volumes", ())]
    sources = [mount.split(":")[0] for mount in mounts if mount.startswith("./docker/")]
    assert sources
    assert all((root / source).exists() for source in sources)


def test_prometheus_scrapes_the_service_where_it_listens(compose: Document, scrape_config: Document) -> None:
    """The target is the service's name and port inside the compose network."""
    (ports,) = compose["services"]["service"]["ports"]
    inside = ports.rpartition(":")[2]
    assert compose["services"]["service"]["environment"]["COGAN_PORT"] == inside
    assert scrape_config["metrics_path"] == "/metrics"
    assert scrape_config["static_configs"] == [{"targets": [f"service:{inside}"]}]
