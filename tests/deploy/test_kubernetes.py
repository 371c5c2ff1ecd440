"""The manifests: built by kustomize, checked against Kubernetes' schemas and our own rules."""

import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import _TrustedHosts

from customedit.config.settings import Settings
from customedit.jobs import notifications, webhook_addresses
from worker.main import GRACE_S

ROOT = Path(__file__).resolve().parents[2]

VERSIONS = ("1.30", "1.37")
"""The oldest that is served (it knows `preStop.sleep`), and the newest whose schemas are there."""

CUSTOM = {
    "ScaledObject": "keda.sh/v1alpha1",
    "TriggerAuthentication": "keda.sh/v1alpha1",
    "PodMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
}
SCALED = {
    "scaleTargetRef",
    "minReplicaCount",
    "maxReplicaCount",
    "pollingInterval",
    "cooldownPeriod",
    "advanced",
    "triggers",
}
TRIGGERS = {
    "redis": {"listName", "listLength", "databaseIndex", "enableTLS"},
    "prometheus": {"serverAddress", "query", "threshold"},
}
"""Of KEDA's fields those that we use, spelt as the schemas of KEDA 2.15 and 2.20 spell them."""

WORKLOADS = ("Deployment", "StatefulSet", "Job")


def of_kind(objects: list[Any], *kinds: str) -> dict[str, Any]:
    return {o["metadata"]["name"]: o for o in objects if o["kind"] in kinds}


def pods(objects: list[Any]) -> dict[str, Any]:
    return {name: o["spec"]["template"] for name, o in of_kind(objects, *WORKLOADS).items()}


def containers(objects: list[Any]) -> Iterator[tuple[str, Any]]:
    for name, pod in pods(objects).items():
        assert "initContainers" not in pod["spec"]
        for container in pod["spec"]["containers"]:
            yield name, container


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    if any(labels.get(k) != v for k, v in selector.get("matchLabels", {}).items()):
        return False
    rules = selector.get("matchExpressions", [])
    assert all(rule["operator"] == "In" for rule in rules)
    return all(labels.get(rule["key"]) in rule["values"] for rule in rules)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_meets_kubernetes_own_schema(overlay: list[Any], version: str) -> None:
    checked = 0
    for item in overlay:
        if item["kind"] in CUSTOM:
            assert item["apiVersion"] == CUSTOM[item["kind"]]
        else:
            kubernetes_validate.validate(item, version, strict=True)
            checked += 1
    assert checked > 10


def test_a_wrong_manifest_would_be_refused(overlay: list[Any]) -> None:
    (api,) = (o for n, o in of_kind(overlay, "Deployment").items() if n == "customedit-api")
    wrong = {**api, "spec": {**api["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_names_are_unique_and_in_one_namespace(overlay: list[Any]) -> None:
    named = [(o["kind"], o["metadata"]["name"]) for o in overlay]
    assert len(set(named)) == len(named)
    spaces = {o["metadata"].get("namespace") for o in overlay if o["kind"] != "Namespace"}
    assert spaces == {"customedit"}


def test_pods_may_do_no_more_than_they_need(overlay: list[Any]) -> None:
    for name, pod in pods(overlay).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
    for name, container in containers(overlay):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name
    (space,) = of_kind(overlay, "Namespace").values()
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_accounts_exist_and_have_no_token(overlay: list[Any]) -> None:
    accounts = of_kind(overlay, "ServiceAccount")
    assert all(a["automountServiceAccountToken"] is False for a in accounts.values())
    used = {p["spec"].get("serviceAccountName") for p in pods(overlay).values()} - {None}
    assert used == set(accounts)


def test_images_have_a_version(overlay: list[Any]) -> None:
    for name, container in containers(overlay):
        image, _, tag = container["image"].partition("@")[0].rpartition(":")
        assert image and any(c.isdigit() for c in tag) and tag != "latest", name


def test_api_and_workers_have_their_probes(overlay: list[Any]) -> None:
    for name, container in containers(overlay):
        if not name.startswith(("customedit-api", "customedit-worker")):
            continue
        ports = {p["name"] for p in container["ports"]}
        for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"]["path"] == path, name
            assert container[probe]["httpGet"]["port"] in ports, name
        start = container["startupProbe"]
        assert start["httpGet"]["port"] in ports
        if "worker" in name:  # the base may have to be fetched
            assert start["periodSeconds"] * start["failureThreshold"] >= 600


def test_workers_may_drain_before_they_are_killed(overlay: list[Any]) -> None:
    settings = Settings()
    for name, pod in pods(overlay).items():
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
        if "worker" in name:
            assert grace > settings.drain_seconds + 2 * GRACE_S, name


def test_each_budget_and_service_meets_exactly_its_pods(overlay: list[Any]) -> None:
    labels = {n: p["metadata"]["labels"] for n, p in pods(overlay).items()}
    for name, budget in of_kind(overlay, "PodDisruptionBudget").items():
        assert [n for n, own in labels.items() if matches(budget["spec"]["selector"], own)] == [
            name
        ]
    assert {n for n in labels if n.startswith(("customedit-api", "customedit-worker"))} == set(
        of_kind(overlay, "PodDisruptionBudget")
    )
    for name, service in of_kind(overlay, "Service").items():
        selector = {"matchLabels": service["spec"]["selector"]}
        assert [n for n, own in labels.items() if matches(selector, own)] == [name]
    for name, item in of_kind(overlay, "Deployment", "StatefulSet").items():
        assert [n for n, own in labels.items() if matches(item["spec"]["selector"], own)] == [name]


def test_nothing_keeps_a_node_from_being_emptied(overlay: list[Any]) -> None:
    for name, budget in of_kind(overlay, "PodDisruptionBudget").items():
        assert budget["spec"]["maxUnavailable"] == 1, name  # also where there is one pod alone
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow", name


def test_jobs_go_away_so_that_a_changed_one_can_be_applied(overlay: list[Any]) -> None:
    for name, job in of_kind(overlay, "Job").items():
        assert job["spec"]["ttlSecondsAfterFinished"] <= 300, name


def test_valkey_has_room_to_rewrite_its_file(built: Callable[[str], list[Any]]) -> None:
    stores = of_kind(built("local"), "StatefulSet")
    (container,) = stores["customedit-valkey"]["spec"]["template"]["spec"]["containers"]
    (most,) = [v["value"] for v in container["env"] if v["name"] == "VALKEY_MAXMEMORY"]
    assert container["resources"]["limits"]["memory"] == "1Gi" and most == "512mb"


def test_s3_comes_back_from_a_full_disk(built: Callable[[str], list[Any]]) -> None:
    stores = of_kind(built("local"), "StatefulSet")
    (container,) = stores["customedit-s3"]["spec"]["template"]["spec"]["containers"]
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["s3"]
    assert container["args"] == composed["command"]


def test_the_files_that_the_api_takes_in_have_room(built: Callable[[str], list[Any]]) -> None:
    api = of_kind(built("production"), "Deployment")["customedit-api"]
    (tmp,) = [v["emptyDir"] for v in api["spec"]["template"]["spec"]["volumes"]]
    limit = int(tmp["sizeLimit"].removesuffix("Gi")) * 2**30
    defaults = Settings()
    pictures = 8 * defaults.max_upload_bytes
    assert defaults.imports_at_once * defaults.max_import_bytes + pictures <= limit


def test_slow_clients_meet_the_ingress_and_not_the_api(built: Callable[[str], list[Any]]) -> None:
    (ingress,) = of_kind(built("production"), "Ingress").values()
    prefix = "nginx.ingress.kubernetes.io/"
    notes = {k.removeprefix(prefix): v for k, v in ingress["metadata"]["annotations"].items()}
    assert notes["proxy-request-buffering"] == notes["proxy-buffering"] == "on"
    assert int(notes["proxy-body-size"].removesuffix("m")) * 2**20 > Settings().max_import_bytes
    assert int(notes["proxy-read-timeout"]) >= 3600
    assert 0 < int(notes["limit-connections"]) <= 200 and 0 < int(notes["limit-rps"]) <= 100


def test_clients_are_told_apart_behind_the_ingress(production: list[Any]) -> None:
    """Otherwise all share its address, and whoever sends wrong keys locks the others out."""
    (settings,) = (
        item["data"]
        for name, item in of_kind(production, "ConfigMap").items()
        if name.startswith("customedit-settings")
    )
    proxies = settings["CUSTOMEDIT_TRUSTED_PROXIES"]
    networks = [ipaddress.ip_network(network) for network in proxies.split(",")]
    for pods in ("10.244.0.0/16", "172.17.0.0/16", "192.168.0.0/16", "100.64.0.0/10", "fd00::/8"):
        pod = ipaddress.ip_network(pods)
        assert any(pod.version == n.version and pod.subnet_of(n) for n in networks)  # type: ignore[arg-type]  # equal versions
    public = map(ipaddress.ip_address, ("8.8.8.8", "203.0.113.7", "100.63.255.255", "2001:4860::1"))
    assert not any(address in network for address in public for network in networks)
    policies = of_kind(production, "NetworkPolicy")  # which make it right
    (source,) = policies["from-ingress"]["spec"]["ingress"][0]["from"]
    assert source["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "ingress-nginx"
    }
    proxy = next(iter(networks[0].hosts()))
    trusted = _TrustedHosts(proxies)  # as the API's server reads the setting
    assert str(proxy) in trusted
    forged = f"198.51.100.1, 203.0.113.7, {proxy}"
    assert trusted.get_trusted_client_address(forged)[0] == "203.0.113.7"


def test_pods_are_spread(overlay: list[Any]) -> None:
    for name, item in of_kind(overlay, "Deployment").items():
        template = item["spec"]["template"]
        spread = template["spec"]["topologySpreadConstraints"]
        assert {s["topologyKey"] for s in spread} == {
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        }
        own = template["metadata"]["labels"]
        assert all(matches(s["labelSelector"], own) for s in spread), name


def test_network_is_closed_but_for_what_is_said(overlay: list[Any]) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    for name, policy in policies.items():
        if name == "default-deny":
            continue
        spec = policy["spec"]
        for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
            assert rule.get("ports"), name
            peers = rule.get("to") or rule.get("from")
            assert peers and all(peers), name
            for peer in peers:  # the whole internet only without its private part
                block = peer.get("ipBlock", {})
                if block.get("cidr") == "0.0.0.0/0":
                    private = {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}
                    assert private <= set(block["except"])


PRIVATE = [
    *("0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "168.63.129.16", "169.254.169.254"),
    *("172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.9", "192.168.1.1", "198.18.0.1"),
    *("198.19.255.255", "198.51.100.7", "203.0.113.7", "224.0.0.1", "240.0.0.1"),
    *("::1", "fc00::1", "fe80::1", "2001::1", "2001:db8::1", "2002:a00:1::", "64:ff9b::a00:1"),
]


def let_out(policy: Any, address: str) -> bool:
    """Whether a pod under ``policy`` may reach ``address``."""
    found = ipaddress.ip_address(address)
    blocks = [peer["ipBlock"] for rule in policy["spec"]["egress"] for peer in rule["to"]]
    return any(
        found in ipaddress.ip_network(block["cidr"])
        and not any(found in ipaddress.ip_network(inner) for inner in block["except"])
        for block in blocks
    )


def test_webhooks_reach_public_addresses_alone(overlay: list[Any]) -> None:
    policy = of_kind(overlay, "NetworkPolicy")["worker-webhooks"]
    for address in PRIVATE:
        assert not webhook_addresses.public(ipaddress.ip_address(address)), address
        assert not let_out(policy, address), address
    for address in ("8.8.8.8", "172.32.0.1", "192.0.1.1", "2606:4700::1111"):
        assert webhook_addresses.public(ipaddress.ip_address(address)), address
        assert let_out(policy, address), address


def test_the_network_is_no_wider_than_the_workers_own_check(production: list[Any]) -> None:
    policy = of_kind(production, "NetworkPolicy")["worker-webhooks"]

    @given(st.ip_addresses(v=4) | st.ip_addresses(v=6, network="2000::/3"))
    def check(address: Any) -> None:
        assert webhook_addresses.public(address) or not let_out(policy, str(address))

    check()


def test_open_policies_name_pods_that_exist(overlay: list[Any]) -> None:
    labels = [p["metadata"]["labels"] for p in pods(overlay).values()]
    for name, policy in of_kind(overlay, "NetworkPolicy").items():
        assert any(matches(policy["spec"]["podSelector"], own) for own in labels), name


def test_secrets_come_by_reference(overlay: list[Any]) -> None:
    for config in of_kind(overlay, "ConfigMap").values():
        assert not any("SECRET" in n or "PASSWORD" in n or "REDIS" in n for n in config["data"])
    for name, container in containers(overlay):
        for variable in container.get("env", []):
            secret = any(s in variable["name"] for s in ("SECRET", "PASSWORD", "ACCESS_KEY"))
            assert not secret or "secretKeyRef" in variable["valueFrom"], name
    for name, pod in pods(overlay).items():
        if name.startswith(("customedit-api", "customedit-worker")):
            (container,) = pod["spec"]["containers"]
            sources = [next(iter(source)) for source in container["envFrom"]]
            assert sources == ["configMapRef", "secretRef"], name


def test_every_referred_config_and_secret_is_made_or_told(overlay: list[Any]) -> None:
    made = set(of_kind(overlay, "ConfigMap", "Secret"))
    told = {"customedit-secrets", "customedit-keda"}  # production: made elsewhere
    production = bool(of_kind(overlay, "ScaledObject"))
    for _, container in containers(overlay):
        for source in container.get("envFrom", []):
            (reference,) = source.values()
            assert reference["name"] in made | (told if production else set())


def test_stores_in_the_cluster_are_those_of_compose(
    built: Callable[[str], list[Any]], compose: dict[str, Any]
) -> None:
    stores = of_kind(built("local"), "StatefulSet")
    for name in ("valkey", "s3"):
        composed = compose["services"][name]
        (container,) = stores[f"customedit-{name}"]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == composed["image"]
        assert container.get("args", composed["command"]) == composed["command"]


# where there are GPUs and KEDA


def test_every_kind_of_job_has_a_group_of_workers(production: list[Any]) -> None:
    taken: list[str] = []
    for name, container in containers(production):
        if "worker" in name:
            env = {v["name"]: v.get("value") for v in container["env"]}
            taken += env["CUSTOMEDIT_WORKER_QUEUES"].split(",")
            assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert sorted(taken) == sorted(Settings().worker_queues.split(","))


def test_groups_scale_by_the_lists_of_their_own_queues(production: list[Any]) -> None:
    deployments = of_kind(production, "Deployment")
    scaled = of_kind(production, "ScaledObject")
    assert len(scaled) == 2
    for item in scaled.values():
        target = deployments[item["spec"]["scaleTargetRef"]["name"]]
        (container,) = target["spec"]["template"]["spec"]["containers"]
        env = {v["name"]: v.get("value") for v in container["env"]}
        kinds = env["CUSTOMEDIT_WORKER_QUEUES"].split(",")
        triggers = item["spec"]["triggers"]
        lists = [t["metadata"]["listName"] for t in triggers if t["type"] == "redis"]
        assert lists == [notifications.queue(Settings(), kind) for kind in kinds]
        (query,) = [t["metadata"]["query"] for t in triggers if t["type"] == "prometheus"]
        assert f'kind=~"{"|".join(kinds)}"' in query
        assert "replicas" not in target["spec"]  # or each apply would undo the scaling


def test_scaled_objects_are_spelt_as_keda_spells_them(production: list[Any]) -> None:
    for item in of_kind(production, "ScaledObject").values():
        assert item["spec"].keys() == SCALED
        for trigger in item["spec"]["triggers"]:
            assert trigger.keys() <= {"type", "metadata", "authenticationRef"}
            assert trigger["metadata"].keys() == TRIGGERS[trigger["type"]]
            assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_redis_triggers_authenticate(production: list[Any]) -> None:
    known = of_kind(production, "TriggerAuthentication")
    for item in of_kind(production, "ScaledObject").values():
        for trigger in item["spec"]["triggers"]:
            if trigger["type"] == "redis":
                assert trigger["authenticationRef"]["name"] in known


def test_one_edit_worker_always_stands_ready(production: list[Any]) -> None:
    scaled = of_kind(production, "ScaledObject")
    least = {name: item["spec"]["minReplicaCount"] for name, item in scaled.items()}
    assert least == {"customedit-worker-customize": 0, "customedit-worker-edit": 1}


def test_the_front_door_leads_to_the_api_alone(production: list[Any]) -> None:
    (ingress,) = of_kind(production, "Ingress").values()
    (rule,) = ingress["spec"]["rules"]
    paths = {p["path"]: p["backend"]["service"]["name"] for p in rule["http"]["paths"]}
    assert set(paths.values()) == {"customedit-api"}
    prefixes = [p["path"] for p in rule["http"]["paths"] if p["pathType"] == "Prefix"]
    assert not any("/metrics".startswith(path) for path in prefixes)
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
