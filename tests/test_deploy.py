"""deploy/: the manifest, the chart that renders the same, kind's configuration, the image's recipe."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import go_template
import pytest
import yaml

from cni_plugins import VERSION
from conflist.lint import lint
from flanneld.backend import table
from flanneld.install import COMMANDS
from flanneld.netconf import NetworkConfig
from flanneld.options import Options, parse
from integration import suite
from tests.test_install import bundle, says

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "deploy/kube-flannel.yml"
CHART = ROOT / "deploy/chart"
RELEASE = {"Name": "flannel", "Namespace": "kube-flannel"}


def by_kind(text: str) -> dict[str, Any]:
    """Return a file's objects; what is JSON in a ConfigMap is decoded."""
    found = {}
    for document in yaml.safe_load_all(text):
        if document and "data" in document:
            document["data"] = {name: json.loads(value) for name, value in document["data"].items()}
        if document:
            assert document["kind"] not in found
            found[document["kind"]] = document
    return found


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return by_kind(MANIFEST.read_text())


def merged(defaults: Any, given: Any) -> Any:
    """Merge values as Helm does: objects key by key."""
    if not isinstance(defaults, dict) or not isinstance(given, dict):
        return given
    return {
        **defaults,
        **{key: merged(defaults.get(key), value) for key, value in given.items()},
    }


def rendered(values: dict[str, Any] | None = None) -> str:
    """Render the chart with Go's own template engine."""
    chosen = merged(yaml.safe_load((CHART / "values.yaml").read_text()), values or {})
    texts = [
        go_template.render(path, {"Values": chosen, "Release": RELEASE}).decode()
        for path in sorted((CHART / "templates").iterdir())
    ]
    return "\n---\n".join(texts)


def render(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the objects that the chart renders."""
    return by_kind(rendered(values))


def daemon(objects: dict[str, Any]) -> Any:
    return objects["DaemonSet"]["spec"]["template"]["spec"]


def test_names_are_the_references(manifest: dict[str, Any]) -> None:
    assert {kind: item["metadata"]["name"] for kind, item in manifest.items()} == {
        "Namespace": "kube-flannel",
        "ServiceAccount": "flannel",
        "ClusterRole": "flannel",
        "ClusterRoleBinding": "flannel",
        "ConfigMap": "kube-flannel-cfg",
        "DaemonSet": "kube-flannel-ds",
    }
    assert list(manifest["ConfigMap"]["data"]) == ["cni-conf.json", "net-conf.json"]
    pod = daemon(manifest)
    assert [item["name"] for item in pod["initContainers"]] == ["install-cni-plugin", "install-cni"]
    assert [item["name"] for item in pod["containers"]] == ["kube-flannel"]
    assert {item["name"]: item.get("hostPath", {}).get("path") for item in pod["volumes"]} == {
        "run": "/run/flannel",
        "cni-plugin": "/opt/cni/bin",
        "cni": "/etc/cni/net.d",
        "flannel-cfg": None,
        "xtables-lock": "/run/xtables.lock",
    }
    assert manifest["DaemonSet"]["spec"]["selector"]["matchLabels"] == {"app": "flannel"}


def test_the_role_has_what_the_client_asks_for_and_no_more(manifest: dict[str, Any]) -> None:
    rights = {
        (group, resource): rule["verbs"]
        for rule in manifest["ClusterRole"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert rights == {("", "nodes"): ["get", "list", "watch"], ("", "nodes/status"): ["patch"]}
    (subject,) = manifest["ClusterRoleBinding"]["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "flannel", "namespace": "kube-flannel"}
    # Reading pods would be another right; the kubelet tells the node's name instead.
    (variable,) = daemon(manifest)["containers"][0]["env"]
    assert variable == {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}


def test_the_pod_may_do_what_it_must_and_no_more(manifest: dict[str, Any]) -> None:
    pod = daemon(manifest)
    assert pod["hostNetwork"]
    assert "hostPID" not in pod
    assert pod["priorityClassName"] == "system-node-critical"
    assert {item["effect"] for item in pod["tolerations"]} == {"NoExecute", "NoSchedule"}
    (main,) = pod["containers"]
    assert main["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    for container in (main, *pod["initContainers"]):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert not context.get("privileged")
        assert context["capabilities"]["drop"] == ["ALL"]


def test_the_flags_are_ours_and_the_probes_find_their_port(manifest: dict[str, Any]) -> None:
    (main,) = daemon(manifest)["containers"]
    options = parse(main["args"], {})
    assert options.kube_subnet_mgr
    assert options.ip_masq
    (port,) = main["ports"]
    assert port["containerPort"] == options.healthz_port
    assert [main[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")] == [
        {"path": path, "port": port["name"]} for path in ("/healthz", "/readyz")
    ]
    mounts = {item["mountPath"].rstrip("/"): item["name"] for item in main["volumeMounts"]}
    assert mounts[os.path.dirname(Options().subnet_file)] == "run"
    assert mounts[os.path.dirname(Options().net_config_path)] == "flannel-cfg"


def test_the_init_containers_run_our_installers(manifest: dict[str, Any]) -> None:
    plugins, config = daemon(manifest)["initContainers"]
    assert {item["command"][0] for item in (plugins, config)} == {f"/opt/bin/{name}" for name in COMMANDS}
    assert plugins["args"] == [mount["mountPath"] for mount in plugins["volumeMounts"]]
    template, target = config["args"]
    name = os.path.basename(template)
    assert name in manifest["ConfigMap"]["data"]
    assert {os.path.dirname(template), os.path.dirname(target)} == {
        mount["mountPath"].rstrip("/") for mount in config["volumeMounts"]
    }


def test_the_network_list_has_no_mistake(manifest: dict[str, Any], tmp_path: Path) -> None:
    plugins = tmp_path / "bin"
    plugins.mkdir()
    file = tmp_path / "10-flannel.conflist"
    file.write_text(json.dumps(manifest["ConfigMap"]["data"]["cni-conf.json"]))
    assert lint([str(file)], [suite.make(str(plugins))]) == []


def test_the_networks_configuration_is_read(manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest["ConfigMap"]["data"]["net-conf.json"])
    config = NetworkConfig.parse(text)
    assert str(config.network) == "10.244.0.0/16"
    assert config.enable_nftables
    assert table.make(config).type == "vxlan"
    kind = yaml.safe_load((ROOT / "deploy/kind/kind.yaml").read_text())
    assert kind["networking"] == {"disableDefaultCNI": True, "podSubnet": str(config.network)}
    assert [node["role"] for node in kind["nodes"]] == ["control-plane", "worker", "worker"]
    assert kind.keys() == {"kind", "apiVersion", "name", "networking", "nodes"}
    assert (kind["kind"], kind["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")


def test_the_chart_renders_the_manifest(manifest: dict[str, Any]) -> None:
    # Helm wants the namespace to be there before the release.
    assert render() == {kind: item for kind, item in manifest.items() if kind != "Namespace"}


def test_the_charts_values_reach_what_they_name() -> None:
    values = {
        "podCidr": "",
        "podCidrv6": "fd00:244::/48",
        "global": {"imagePullSecrets": [{"name": "s"}]},
        "flannel": {
            "vni": 7,
            "directRouting": True,
            "mtu": 1400,
            "backendPort": 4789,
            "backendOptions": {"Learning": True},
            "enableNFTables": False,
            "image": {"repository": "mirror/flannel"},
            "nodeSelector": {"pool": "a"},
            "skipCNIConfigInstallation": True,
            "cniBinDir": "/usr/libexec/cni",
            "healthz": {"port": 0},
        },
    }
    objects = render(values)
    assert objects["ConfigMap"]["data"]["net-conf.json"] == {
        "EnableIPv4": False,
        "EnableIPv6": True,
        "IPv6Network": "fd00:244::/48",
        "EnableNFTables": False,
        "Backend": {
            "Type": "vxlan",
            "VNI": 7,
            "Port": 4789,
            "MTU": 1400,
            "DirectRouting": True,
            "Learning": True,
        },
    }
    pod = daemon(objects)
    assert [item["image"] for item in pod["initContainers"]] == [f"mirror/flannel:v{VERSION}"]
    assert pod["nodeSelector"] == {"pool": "a"}
    assert pod["volumes"][1]["hostPath"]["path"] == "/usr/libexec/cni"
    assert not {"ports", "livenessProbe", "readinessProbe"} & set(pod["containers"][0])
    assert pod["containers"][0]["args"] == ["--ip-masq", "--kube-subnet-mgr"]
    assert pod["imagePullSecrets"] == [{"name": "s"}]


FLANNELS_VALUES = """
global.imagePullSecrets global.commonLabels global.commonAnnotations podCidr podCidrv6
flannel.image.repository flannel.image.tag flannel.cniBinDir flannel.cniConfDir
flannel.skipCNIConfigInstallation flannel.enableNFTables flannel.args flannel.backend flannel.backendPort
flannel.mtu flannel.vni flannel.GBP flannel.directRouting flannel.backendPortv6 flannel.psk
flannel.tunnelMode flannel.keepaliveInterval flannel.cniConf flannel.resources flannel.healthz.port
flannel.healthz.livenessProbe flannel.healthz.readinessProbe flannel.tolerations flannel.nodeSelector
flannel.podLabels flannel.podAnnotations flannel.daemonSet.labels flannel.daemonSet.annotations
flannel.configMap.labels flannel.configMap.annotations flannel.serviceAccount.labels
flannel.serviceAccount.annotations flannel.rbac.labels flannel.rbac.annotations
flannel.rbac.clusterRole.labels flannel.rbac.clusterRole.annotations
flannel.rbac.clusterRoleBinding.labels flannel.rbac.clusterRoleBinding.annotations netpol.enabled
netpol.args netpol.image.repository netpol.image.tag
"""
"""Those of flannel's chart, but for the second image, whose content is in ours, and macPrefix, of Windows."""


def test_the_values_are_those_of_flannels_chart() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for name in FLANNELS_VALUES.split():
        found = values
        for key in name.split("."):
            assert key in found, name
            found = found[key]


def test_labels_and_annotations_of_one_kind_come_before_the_common_ones() -> None:
    one = {"labels": {"a": "own", "own": "x"}, "annotations": {"a": "own", "own": "x"}}
    common = {"a": "common", "b": "common", "app": "else"}
    keys = ("daemonSet", "configMap", "serviceAccount")
    flannel: dict[str, Any] = dict.fromkeys(keys, one)
    flannel["rbac"] = {
        "labels": {"a": "rbac", "r": "rbac"},
        "annotations": {"a": "rbac", "r": "rbac"},
        "clusterRole": one,
    }
    flannel |= {"podLabels": {"a": "pod", "tier": "else"}, "podAnnotations": {"a": "pod"}}
    objects = render({"global": {"commonLabels": common, "commonAnnotations": common}, "flannel": flannel})
    for kind in ("DaemonSet", "ConfigMap", "ServiceAccount", "ClusterRole"):
        for found in (objects[kind]["metadata"]["labels"], objects[kind]["metadata"]["annotations"]):
            assert found.items() >= {"a": "own", "own": "x", "b": "common"}.items(), kind
    assert objects["ClusterRole"]["metadata"]["labels"]["r"] == "rbac"
    assert objects["ClusterRoleBinding"]["metadata"]["labels"].items() >= {"a": "rbac", "b": "common"}.items()
    pod = objects["DaemonSet"]["spec"]["template"]["metadata"]
    assert pod["labels"] == {"app": "flannel", "tier": "node", "a": "pod", "b": "common"}
    assert pod["annotations"] == {**common, "a": "pod"}
    selector = objects["DaemonSet"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pod["labels"].items()


def test_keys_without_a_value_are_as_good_as_none() -> None:
    """As YAML has them when what was under a key is commented out."""
    empty = {"labels": None, "annotations": None}
    names = ("daemonSet", "configMap", "serviceAccount")
    flannel: dict[str, Any] = dict.fromkeys(names, empty) | {"podLabels": None, "podAnnotations": None}
    flannel["rbac"] = {**empty, "clusterRole": empty, "clusterRoleBinding": empty}
    common = {"commonLabels": None, "commonAnnotations": None, "imagePullSecrets": None}
    assert render({"global": common, "flannel": flannel}) == render()


def test_network_policies_run_beside_flanneld_where_they_are_asked_for() -> None:
    image = {"repository": "mirror/policies", "tag": "v9"}
    objects = render({"netpol": {"enabled": True, "args": ["--v=4"], "image": image}})
    pod = daemon(objects)
    main, policies = pod["containers"]
    assert main == daemon(render())["containers"][0]
    assert (policies["image"], policies["args"]) == ("mirror/policies:v9", ["--v=4"])
    assert {mount["name"] for mount in policies["volumeMounts"]} <= {item["name"] for item in pod["volumes"]}
    resources = {name for rule in objects["ClusterRole"]["rules"] for name in rule["resources"]}
    assert resources >= {"nodes", "nodes/status", "pods", "namespaces", "networkpolicies"}


def test_selinux_options_are_the_pods() -> None:
    pod = daemon(render({"flannel": {"seLinuxOptions": {"type": "spc_t"}}}))
    assert pod["securityContext"] == {"seLinuxOptions": {"type": "spc_t"}}
    assert "securityContext" not in daemon(render())


def test_wireguards_values_are_the_references_keys() -> None:
    values = {
        "backend": "wireguard",
        "backendPort": 51000,
        "backendPortv6": 51001,
        "psk": "secret",
        "mtu": 1300,
        "tunnelMode": "auto",
        "keepaliveInterval": 25,
    }
    assert render({"flannel": values})["ConfigMap"]["data"]["net-conf.json"]["Backend"] == {
        "Type": "wireguard",
        "ListenPort": 51000,
        "ListenPortV6": 51001,
        "PSK": "secret",
        "MTU": 1300,
        "Mode": "auto",
        "PersistentKeepaliveInterval": 25,
    }


def test_all_say_one_version(manifest: dict[str, Any]) -> None:
    pod = daemon(manifest)
    images = {item["image"] for item in (*pod["initContainers"], *pod["containers"])}
    assert images == {f"cni-plugins-flannel:v{VERSION}"}
    assert f'image.version="v{VERSION}"' in (ROOT / "Dockerfile").read_text()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, f"v{VERSION}")


def test_the_image_is_built_without_root_and_starts_the_daemon() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line for line in text.splitlines() if line and not line.startswith("#")]
    build = steps.index("USER builder")
    assert all("make" not in step.split()[1:2] for step in steps[:build])
    (made,) = [step for step in steps if step.startswith("RUN make build build-flanneld")]
    assert steps.index(made) > build
    final = steps[steps.index("FROM scratch") :]
    assert [step.split()[0] for step in final] == ["FROM", "LABEL", "COPY", "ENTRYPOINT"]
    assert final[-2:] == [
        "COPY --from=build --chown=0:0 /home/builder/image /",
        'ENTRYPOINT ["/opt/bin/flanneld"]',
    ]


def test_the_image_has_the_packages_that_make_asks_for(tmp_path: Path) -> None:
    """The Dockerfile reads the list that build/overlay.py reads, which tests that have no packages see."""
    (command,) = re.findall(r"\$\((sed .*) /tmp/packages\.txt\)", (ROOT / "Dockerfile").read_text())
    done = subprocess.run(
        ["sh", "-c", f"{command} {ROOT}/build/packages.txt"], capture_output=True, check=True, text=True
    )
    known = runpy.run_path(str(ROOT / "build/overlay.py"))["groups"](
        (ROOT / "build/packages.txt").read_text()
    )
    assert done.stdout.split() == [*known["build"][1], *known["image-content"][1]]
    assert known["build"][0] == ""  # a group that it adds to would be needed as well


def test_every_base_of_an_image_is_pinned() -> None:
    """A tag alone may be another system tomorrow."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    given = dict(line.removeprefix("ARG ").split("=", 1) for line in lines if line.startswith("ARG "))
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert bases == ["${BASE}", "scratch"]
    assert re.fullmatch(r"docker\.io/library/debian:12-slim@sha256:[0-9a-f]{64}", given["BASE"])
    (copied,) = [line for line in lines if line.startswith("COPY --from=")]
    assert copied.split()[1] == "--from=build"  # an image could stand there, too


def test_nodes_of_both_architectures_get_the_daemon(manifest: dict[str, Any]) -> None:
    """Those for which there is an image."""
    affinity = daemon(manifest)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = affinity["nodeSelectorTerms"]
    wanted = {each["key"]: each["values"] for each in term["matchExpressions"]}
    assert wanted == {"kubernetes.io/os": ["linux"], "kubernetes.io/arch": ["amd64", "arm64"]}


def test_kinds_script_says_how_it_is_used() -> None:
    script = ROOT / "deploy/kind/run.sh"
    subprocess.run(["bash", "-n", script], check=True)
    subprocess.run(["shellcheck", script], check=True)
    done = subprocess.run([script, "nonsense"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "deploy/kind/run.sh network" in done.stderr


def test_the_installers_know_the_bundle(tmp_path: Path) -> None:
    source = bundle(tmp_path / "bundle", "1.0", ("flannel",))
    link = tmp_path / "install-cni"
    link.symlink_to(ROOT / "flanneld/__main__.py")
    command = ["--bundle", source, str(tmp_path / "bin")]
    done = subprocess.run(
        [sys.executable, str(link), *command],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert says(tmp_path / "bin", "flannel") == "flannel 1.0"
