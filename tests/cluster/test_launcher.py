"""Ray's cluster launcher files: Ray's own check of them, and what that does not see."""

from __future__ import annotations

import re
from string import Template
from typing import Any

import pytest
import yaml

from lethe.pool.resources import promised
from tests.cluster.files import CLUSTER, README, arguments, documents, leaves

pytestmark = pytest.mark.slow

TEXT = (CLUSTER / "aws.yaml").read_text()
NAMES = re.findall(r"\$(\w+)", re.search(r"envsubst '([^']*)'", README)[1])


def rendered() -> dict[str, Any]:
    """aws.yaml as README.md's envsubst leaves it, with values that are none."""
    return yaml.safe_load(Template(TEXT).safe_substitute({name: f"my-{name.lower()}" for name in NAMES}))


def local() -> dict[str, Any]:
    return documents("local.yaml")[0]


@pytest.mark.parametrize("read", [rendered, local], ids=["aws.yaml", "local.yaml"])
def test_rays_schema_check_accepts_it(read: Any) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole = prepare_config(read())
    validate_config(whole)
    with pytest.raises(Exception, match="max_workers"):
        validate_config({**whole, "max_workers": "many"})


def test_every_name_in_braces_comes_from_the_stack_or_from_the_readme() -> None:
    outputs = set(stack()["Outputs"])
    exported = set(re.findall(r"(?:export | )(\w+)=", "\n".join(re.findall(r"^export .*", README, re.M))))
    used = re.findall(r"\$\{(\w+)\}", "".join(line for line in TEXT.splitlines() if not line.startswith("#")))
    assert set(NAMES) == set(used)
    assert set(NAMES) <= outputs | exported
    assert outputs <= set(NAMES)


def test_nothing_is_left_running_and_work_is_on_spot() -> None:
    types = rendered()["available_node_types"]
    head, worker = types.pop(rendered()["head_node_type"]), types.pop("gpu")
    assert not types
    assert head["max_workers"] == 0
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert "GPU" not in head["resources"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert worker["min_workers"] == 0
    assert worker["resources"]["GPU"] == 1
    assert rendered()["provider"] == {
        "type": "aws", "region": "my-region", "cache_stopped_nodes": False, "use_internal_ips": True
    }  # fmt: skip


@pytest.mark.parametrize("read", [rendered, local], ids=["aws.yaml", "local.yaml"])
def test_studies_are_told_how_far_it_grows(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read()
    commands = whole["head_start_ray_commands"] or [(CLUSTER / "local.yaml").read_text()]
    told = re.search(r"LETHE_NODES=(\S+)", " ".join(commands))
    assert told
    monkeypatch.setenv("LETHE_NODES", told[1])
    (worker,) = (t for name, t in whole["available_node_types"].items() if name != whole["head_node_type"])
    resources = {kind: worker["resources"][kind] for kind in worker["resources"] if kind in ("CPU", "GPU")}
    assert promised() == [resources] * worker["max_workers"]
    assert whole["max_workers"] == worker["max_workers"]


def test_nobody_gets_in_from_outside() -> None:
    whole = rendered()
    assert "instance-connect" in whole["auth"]["ssh_proxy_command"]
    for name, kind in whole["available_node_types"].items():
        config = kind["node_config"]
        assert config["SecurityGroupIds"] == ["my-nodegroup"], f"{name}: Ray's own group is open to everybody"
        assert config["MetadataOptions"]["HttpTokens"] == "required"
    start = " ".join(whole["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in TEXT


def test_the_token_is_asked_for_and_is_in_no_file() -> None:
    options = rendered()["docker"]["run_options"]
    assert "RAY_AUTH_MODE=token" in " ".join(arguments("ENV"))
    assert "-e RAY_AUTH_TOKEN_PATH=/run/lethe/ray-token" in options
    assert "-v /home/ubuntu/ray-token:/run/lethe/ray-token:ro" in options
    (fetch,) = (c for c in rendered()["initialization_commands"] if "ssm get-parameter" in c)
    assert fetch.startswith("umask 077 && ")
    assert fetch.endswith("> ~/ray-token")
    for path, value in leaves(rendered()):
        assert not re.search(r"(PASSWORD|SECRET|TOKEN|KEY)=", str(value)), path


def test_commands_run_in_the_images_checkout() -> None:
    whole = rendered()
    for command in (whole["head_start_ray_commands"][-1], whole["worker_start_ray_commands"][-1]):
        assert command.startswith(f"cd {arguments('WORKDIR')[-1]} && ")
    home = re.search(r"LETHE_HOME=(\S+)", " ".join(arguments("ENV")))[1]
    shared = re.search(r"-v (\S+):(\S+)", next(o for o in whole["docker"]["run_options"] if o.endswith("lethe:/lethe")))
    assert home.startswith(f"{shared[2]}/")
    setup = "\n".join(whole["initialization_commands"])
    assert "mount -t nfs4" in setup
    assert f"my-filesystem.efs.my-region.amazonaws.com:/ {shared[1]}" in setup


class _Stack(yaml.SafeLoader):
    """CloudFormation's short forms, as {"Ref": name} and so on."""


for _tag in ("Ref", "Sub", "GetAtt"):
    _Stack.add_constructor(f"!{_tag}", lambda loader, node, tag=_tag: {tag: loader.construct_scalar(node)})


def stack() -> dict[str, Any]:
    return yaml.load((CLUSTER / "aws-base.yaml").read_text(), Loader=_Stack)


def test_the_stack_refers_to_what_it_has() -> None:
    known = {*stack()["Resources"], *stack()["Parameters"]}
    for path, value in leaves(stack()):
        kind = path.rpartition(".")[2]
        named = {"Ref": [value], "GetAtt": [str(value).split(".")[0]], "Sub": re.findall(r"\$\{(\w+)\}", str(value))}
        assert set(named.get(kind, ())) <= known, path


def test_the_stack_lets_in_the_nodes_and_the_login_endpoint_only() -> None:
    resources = stack()["Resources"]
    for name, resource in resources.items():
        if "SecurityGroup" in resource["Type"]:
            text = str(resource)
            assert "0.0.0.0" not in text, name
            assert "::/0" not in text, name
            assert "SecurityGroupIngress'" not in str(resource["Properties"]), name
    rules = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::EC2::SecurityGroupIngress"]
    assert {(r["GroupId"]["Ref"], r["SourceSecurityGroupId"]["Ref"]) for r in rules} == {
        ("Nodes", "Nodes"),
        ("Nodes", "Login"),
    }
    assert resources["Files"]["Properties"]["Encrypted"] is True
    assert resources["Files"]["DeletionPolicy"] == "Retain"


def test_roles_reach_this_clusters_token_and_nodes_only() -> None:
    resources, whole = stack()["Resources"], rendered()
    parameter = re.search(r"--name (\S+)", " ".join(whole["initialization_commands"]))[1]
    granted = [value for path, value in leaves(resources) if path.endswith(".Resource.Sub")]
    assert parameter.startswith("/lethe/")
    assert len(granted) == 2
    assert all(value.endswith(":parameter/lethe/*") for value in granted)
    assert f"--name {parameter}" in README
    scaling = resources["Scaling"]["Properties"]["PolicyDocument"]["Statement"]
    (ending,) = (s for s in scaling if "ec2:TerminateInstances" in s["Action"])
    assert ending["Condition"]["StringEquals"] == {"aws:ResourceTag/ray-cluster-name": whole["cluster_name"]}
