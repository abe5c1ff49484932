"""The files for KubeRay: whatever one of them names, another one has. Nothing here asks a Kubernetes cluster."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lethe.config.study import load_study
from lethe.pool.resources import promised
from tests.cluster.files import CLUSTER, README, SECRET_NAME, arguments, documents, leaves, pins

KUSTOMIZATION = documents("kubernetes/kustomization.yaml")[0]
OBJECTS = [found for name in KUSTOMIZATION["resources"] for found in documents(f"kubernetes/{name}")]
SWEEP = documents("kubernetes/sweep.yaml")[0]
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}  # not ours: KubeRay's Helm chart names it so
ADDRESS = re.compile(r"://(?:\w+@)?([a-z][a-z-]*):(\d+)")


@dataclass(frozen=True)
class Pod:
    """A template of pods: `name` of what makes them, their labels and their spec."""

    name: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        return {p["name"]: p["containerPort"] for c in self.spec["containers"] for p in c.get("ports", ())}


def of(kind: str) -> dict[str, dict[str, Any]]:
    """Objects of a kind by name."""
    return {o["metadata"]["name"]: o for o in OBJECTS if o["kind"] == kind}


def pods() -> Iterator[Pod]:
    for kind in ("StatefulSet", "Deployment"):
        for name, found in of(kind).items():
            yield _pod(name, found["spec"]["template"])
    spec = of("RayCluster")["lethe"]["spec"]
    yield _pod("head", spec["headGroupSpec"]["template"])
    for group in spec["workerGroupSpecs"]:
        yield _pod(group["groupName"], group["template"])


def _pod(name: str, template: dict[str, Any]) -> Pod:
    return Pod(name, template["metadata"]["labels"], template["spec"])


PODS = {pod.name: pod for pod in pods()}
CONTAINERS = [pytest.param(pod, c, id=f"{pod.name}/{c['name']}") for pod in PODS.values() for c in pod.containers]


def chosen(selector: dict[str, str]) -> list[Pod]:
    return [pod for pod in PODS.values() if selector.items() <= pod.labels.items()]


def test_every_object_is_of_a_known_kind_and_of_one_name() -> None:
    kinds = {
        "Namespace",
        "PersistentVolumeClaim",
        "Service",
        "StatefulSet",
        "ConfigMap",
        "Deployment",
        "RayCluster",
        "NetworkPolicy",
    }
    assert {o["kind"] for o in OBJECTS} == kinds
    names = [(o["kind"], o["metadata"]["name"]) for o in OBJECTS]
    assert len(names) == len(set(names))
    assert of("Namespace").keys() == {KUSTOMIZATION["namespace"]}
    assert not [o for o in OBJECTS if o["metadata"].get("namespace")], "the kustomization says where they are"


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl, which has kustomize inside")
def test_kustomize_builds_every_object_in_our_namespace_with_the_image_that_it_names() -> None:
    command = ["kubectl", "kustomize", str(CLUSTER / "kubernetes")]
    built = [*yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout)]
    assert sorted(o["kind"] for o in built) == sorted(o["kind"] for o in OBJECTS)
    assert {o["metadata"].get("namespace") for o in built if o["kind"] != "Namespace"} == {KUSTOMIZATION["namespace"]}
    (image,) = KUSTOMIZATION["images"]
    images = [value for path, value in leaves(built) if path.endswith(".image")]
    assert images.count(f"{image['newName']}:{image['newTag']}") == 4, "MLflow twice, head and workers"
    assert image["name"] not in images


def test_every_file_is_applied_or_named_by_the_readme() -> None:
    files = {p.name for p in (CLUSTER / "kubernetes").iterdir()} - {"kustomization.yaml"}
    assert files - set(KUSTOMIZATION["resources"]) == {"sweep.yaml", "secrets.sh"}
    for name in ("sweep.yaml", "secrets.sh", "namespace.yaml"):
        assert f"cluster/kubernetes/{name}" in README


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_containers_ask_for_what_they_need_and_may_do_no_more(pod: Pod, container: dict[str, Any]) -> None:
    asked, most = (container["resources"][kind] for kind in ("requests", "limits"))
    assert {"cpu", "memory"} <= asked.keys()
    assert "memory" in most
    for kind in asked.keys() & most.keys():
        assert amount(asked[kind]) <= amount(most[kind]), kind
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    whole = pod.spec["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert whole["runAsUser"] > 0
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()


def amount(text: Any) -> float:
    """A Kubernetes quantity."""
    number, unit = re.fullmatch(r"(\d+)(m|Mi|Gi|)", str(text)).groups()
    return float(number) * {"m": 1e-3, "": 1.0, "Mi": 2.0**20, "Gi": 2.0**30}[unit]


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_images_are_ours_or_pinned(pod: Pod, container: dict[str, Any]) -> None:
    (ours,) = KUSTOMIZATION["images"]
    name, _, tag = container["image"].partition(":")
    if name != ours["name"]:
        assert re.search(r"\d", tag), "a version, not latest"
        return
    assert not tag, "the kustomization gives it"
    (user,) = arguments("USER")
    assert str(pod.spec["securityContext"]["runAsUser"]) == user


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_volumes_claims_and_settings_exist(pod: Pod, container: dict[str, Any]) -> None:
    own = of("StatefulSet").get(pod.name, {}).get("spec", {}).get("volumeClaimTemplates", ())
    volumes = {v["name"]: v for v in (*pod.spec.get("volumes", ()), *(c["metadata"] for c in own))}
    assert {m["name"] for m in container.get("volumeMounts", ())} <= volumes.keys()
    for volume in volumes.values():
        if claim := volume.get("persistentVolumeClaim"):
            assert claim["claimName"] in of("PersistentVolumeClaim")
        if settings := volume.get("configMap"):
            files = of("ConfigMap")[settings["name"]]["data"]
            mount = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == volume["name"])
            words = [
                *container.get("command", ()),
                *container.get("args", ()),
                *(e.get("value", "") for e in container.get("env", ())),
            ]
            assert {w.removeprefix(f"{mount}/") for w in words if w.startswith(f"{mount}/")} <= files.keys()


def test_services_find_their_pods_and_stay_inside() -> None:
    for name, service in of("Service").items():
        spec = service["spec"]
        assert spec.get("type", "ClusterIP") == "ClusterIP"
        (pod,) = chosen(spec["selector"])
        assert {p["port"] for p in spec["ports"]} <= set(pod.ports.values()), name
    assert of("RayCluster")["lethe"]["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    for found in [*of("StatefulSet").values(), *of("Deployment").values()]:
        assert (
            found["spec"]["selector"]["matchLabels"].items() <= found["spec"]["template"]["metadata"]["labels"].items()
        )
    assert all(s["spec"]["serviceName"] in of("Service") for s in of("StatefulSet").values())
    assert not any(word in str(OBJECTS) for word in ("LoadBalancer", "NodePort", "externalIPs", "hostPort"))


def test_probes_ask_a_port_that_is_there() -> None:
    for pod in PODS.values():
        for container in pod.containers:
            if probe := container.get("readinessProbe", {}).get("tcpSocket"):
                assert probe["port"] in pod.ports


def peers(rule: dict[str, Any]) -> list[tuple[dict[str, str], bool]]:
    """Labels that a rule lets in, and whether from any namespace."""
    return [(p["podSelector"]["matchLabels"], "namespaceSelector" in p) for p in rule["from"]]


def test_nothing_comes_in_that_no_policy_names() -> None:
    policies = {name: p["spec"] for name, p in of("NetworkPolicy").items()}
    assert {"podSelector": {}, "policyTypes": ["Ingress"]} in policies.values(), "everything else is shut"
    for name, policy in policies.items():
        assert policy["policyTypes"] == ["Ingress"]
        for rule in policy.get("ingress", ()):
            (port_of,) = {pod.labels["app.kubernetes.io/name"] for pod in chosen(policy["podSelector"]["matchLabels"])}
            ports = {
                n
                for pod in PODS.values()
                if pod.labels["app.kubernetes.io/name"] == port_of
                for n in pod.ports.values()
            }
            for labels, anywhere in peers(rule):
                assert (labels == OPERATOR) if anywhere else chosen(labels), name
            inside = all(chosen(labels) == chosen(policy["podSelector"]["matchLabels"]) for labels, _ in peers(rule))
            assert {p["port"] for p in rule.get("ports", ())} <= ports, name
            assert rule.get("ports") or inside, "only nodes of the Ray cluster reach each other on every port"


def lets(client: Pod, service: str, port: int) -> bool:
    """Whether some policy lets this pod speak to the pods of that service."""
    (server,) = chosen(of("Service")[service]["spec"]["selector"])
    for policy in of("NetworkPolicy").values():
        selector = policy["spec"]["podSelector"].get("matchLabels")
        if not selector or server not in chosen(selector):
            continue
        for rule in policy["spec"].get("ingress", ()):
            if any(client in chosen(labels) for labels, _ in peers(rule)) and {"port": port} in rule["ports"]:
                return True
    return False


def test_every_address_is_a_service_that_lets_its_caller_in() -> None:
    found = 0
    for pod in PODS.values():
        settings = [
            of("ConfigMap")[v["configMap"]["name"]]["data"] for v in pod.spec.get("volumes", ()) if "configMap" in v
        ]
        for path, value in leaves([pod.spec, settings]):
            for name, port in ADDRESS.findall(str(value)):
                found += 1
                assert int(port) in {p["port"] for p in of("Service")[name]["spec"]["ports"]}, path
                assert lets(pod, name, int(port)), f"{pod.name} cannot reach {name}"
    assert found >= 4


def test_mlflow_answers_to_the_name_that_it_is_asked_by() -> None:
    (server,) = PODS["mlflow"].spec["containers"]
    allowed = next(a for a in server["args"] if a.startswith("--allowed-hosts=")).partition("=")[2].split(",")
    uri = next(e["value"] for e in PODS["head"].containers[0]["env"] if e["name"] == "MLFLOW_TRACKING_URI")
    assert uri.removeprefix("http://") in allowed
    assert f"--port={PODS['mlflow'].ports['http']}" in server["args"]
    assert "--app-name=basic-auth" in server["args"]
    assert "default_permission = NO_PERMISSIONS" in of("ConfigMap")["mlflow"]["data"]["auth.ini"]


def test_secrets_come_from_secrets() -> None:
    for pod in PODS.values():
        for container in pod.containers:
            for setting in container.get("env", ()):
                if SECRET_NAME.search(setting["name"]):
                    assert "value" not in setting, setting["name"]
                    assert "secretKeyRef" in setting["valueFrom"], setting["name"]
    for path, value in leaves([*OBJECTS, SWEEP]):
        assert not re.search(r"://[^/@\s]+:[^/@\s]+@", str(value)), path
        assert not re.search(r"password\s*[=:]\s*\S", str(value), re.IGNORECASE), path


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """What secrets.sh gives to kubectl, for which a copy of its folder stands."""
    if not shutil.which("openssl"):
        pytest.skip("secrets.sh needs openssl")
    stub = tmp_path / "bin/kubectl"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\ncp -r . {tmp_path}/kept\n')
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    subprocess.run(CLUSTER / "kubernetes/secrets.sh", env=environment, check=True, capture_output=True)
    assert {p.name for p in tmp_path.iterdir()} == {"bin", "said", "kept"}, "nothing stays on the disk"
    return tmp_path


def test_secrets_sh_makes_every_key_that_is_referred_to(kept: Path) -> None:
    names, files = set(), {p.name: p.read_text() for p in (kept / "kept").iterdir()}
    for pod in PODS.values():
        for path, value in leaves(pod.spec):
            if path.endswith(("secretKeyRef.key", "secret.items.0.key")):
                assert value in files, path
                names.add(value)
            if path.endswith(("secretKeyRef.name", "secretName")):
                assert value == "lethe-services"
    assert names == files.keys(), "and no other"
    said = (kept / "said").read_text()
    assert said.startswith(f"--namespace {KUSTOMIZATION['namespace']} create secret generic lethe-services ")
    made = [word for name, word in files.items() if name not in ("mlflow-user", "s3.json")]
    assert len({*made}) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{48}", word) for word in made)
    assert not any(word in said for word in made), "not on a command line"
    (identity,) = json.loads(files["s3.json"])["identities"]
    assert identity["credentials"] == [{"accessKey": files["s3-access-key"], "secretKey": files["s3-secret-key"]}]


def test_the_ray_cluster_is_what_a_study_is_told_and_what_the_image_has(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = of("RayCluster")["lethe"]["spec"]
    assert spec["rayVersion"] == pins()["ray"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"]
    assert spec["autoscalerOptions"]["resources"]["requests"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = spec["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"]) == (0, 0), "no GPU while nothing runs"
    (node,) = group["template"]["spec"]["containers"]
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    told = next(e["value"] for e in head["env"] if e["name"] == "LETHE_NODES")
    monkeypatch.setenv("LETHE_NODES", told)
    counted = {"CPU": float(group["rayStartParams"]["num-cpus"]), "GPU": float(group["rayStartParams"]["num-gpus"])}
    asked = node["resources"]["requests"]
    assert counted == {"CPU": float(asked["cpu"]), "GPU": float(asked["nvidia.com/gpu"])}
    assert promised() == [counted] * group["maxReplicas"]
    assert {node["workingDir"], head["workingDir"]} == set(arguments("WORKDIR"))
    assert node["volumeMounts"] == head["volumeMounts"]
    home = re.search(r"LETHE_HOME=(\S+)", " ".join(arguments("ENV")))[1]
    assert any(home.startswith(f"{m['mountPath']}/") for m in node["volumeMounts"])
    assert of("PersistentVolumeClaim")["lethe-home"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_job_is_for_this_cluster_and_its_command_is_one_of_ours() -> None:
    spec = SWEEP["spec"]
    assert SWEEP["kind"] == "RayJob"
    assert spec["clusterSelector"] == {"ray.io/cluster": "lethe"}
    assert spec["backoffLimit"] == 0
    assert spec["submissionMode"] == "HTTPMode"
    python, flag, module, study, *settings = shlex.split(spec["entrypoint"])
    assert (python, flag, module) == ("python", "-m", "platform.sweep")
    assert load_study(study, settings[1::2]).first_recipe().engine.device == "cuda"


def test_the_readmes_commands_name_what_there_is() -> None:
    for service, port in re.findall(r"port-forward -n lethe svc/(\S+) (\d+)", README):
        if service == "lethe-head-svc":  # KubeRay's name for the head of the cluster `lethe`
            assert int(port) in PODS["head"].ports.values()
        else:
            assert int(port) in {p["port"] for p in of("Service")[service]["spec"]["ports"]}
    assert set(re.findall(r"get secret -n lethe (\S+)", README)) == {"lethe", "lethe-services"}
    assert yaml.safe_load((CLUSTER / "kubernetes/storage.yaml").read_text())["kind"] == "PersistentVolumeClaim"
