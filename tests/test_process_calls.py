"""Plugins as processes: hostile input never gives anything but an error object (section 5, "Error")."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cni_plugins import VERSION
from cni_plugins.multicall import MODULES
from cni_plugins.spec.codec import MAX_BYTES
from tests.calls import VERBS, VERSIONS, call, host_local, variables

if TYPE_CHECKING:
    from pathlib import Path

FIRST = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}


@pytest.mark.parametrize("name", MODULES)
def test_started_by_hand_it_says_what_it_is(name: str, suite_bin: str) -> None:
    answer = call(f"{suite_bin}/{name}", {})
    assert (answer.status, answer.stdout) == (1, b"")
    first, second = answer.stderr.splitlines()
    assert first == f"CNI {name} plugin v{VERSION}"
    assert second == f"CNI protocol versions supported: {', '.join(VERSIONS)}"


@pytest.mark.parametrize("name", MODULES)
def test_version_needs_nothing_but_the_command(name: str, suite_bin: str) -> None:
    answer = call(f"{suite_bin}/{name}", {"CNI_COMMAND": "VERSION"}, {"cniVersion": "0.3.1"})
    assert (answer.status, answer.stderr) == (0, "")
    assert answer.json == {"cniVersion": "0.3.1", "supportedVersions": list(VERSIONS)}
    assert answer.stdout == json.dumps(answer.json, indent=4).encode()


def test_every_verb_in_every_version(suite_bin: str, tmp_path: Path) -> None:
    program = f"{suite_bin}/host-local"
    for version in VERSIONS:
        folder = tmp_path / version
        for verb in ("STATUS", "ADD", "CHECK", "GC", "DEL", "DEL", "VERSION"):
            raw = host_local(folder, version)
            if verb in ("ADD", "DEL"):
                del raw["prevResult"]
            if verb == "GC":
                raw["cni.dev/valid-attachments"] = [{"containerID": "c1", "ifname": "eth0"}]
            answer = call(program, variables(verb, suite_bin), raw)
            where = f"{verb} in {version}: {answer.stdout!r} {answer.stderr}"
            if VERSIONS.index(version) < VERSIONS.index(FIRST.get(verb, version)):
                assert answer.code == 1, where
                assert answer.json["cniVersion"] == version
            else:
                assert (answer.status, answer.stderr) == (0, ""), where
                assert bool(answer.stdout) is (verb in ("ADD", "VERSION")), where
            if verb == "ADD":
                assert answer.json["cniVersion"] == version
                assert answer.stdout == json.dumps(answer.json, indent=4).encode()
                key = "ip4" if version < "0.3" else "ips"
                assert "10.1.2.2/24" in json.dumps(answer.json[key])


HOSTILE = {
    "empty": b"",
    "white space": b" \n",
    "cut off": b'{"cniVersion": "1.1.0", "name": "ne',
    "not UTF-8": b'{"cniVersion": "1.1.0", "name": "\xff"}',
    "UTF-16": '{"cniVersion": "1.1.0"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"cniVersion": "1.1.0"}',
    "NUL": b"\0",
    "NaN": b'{"cniVersion": "1.1.0", "name": "net", "mtu": NaN}',
    "Infinity": b'{"cniVersion": "1.1.0", "name": "net", "mtu": -Infinity}',
    "1e999": b'{"cniVersion": "1.1.0", "name": "net", "mtu": 1e999}',
    "long number": b'{"cniVersion": "1.1.0", "name": "net", "mtu": ' + b"1" * 100_000 + b"}",
    "deep lists": b'{"cniVersion": "1.1.0", "name": "net", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep objects": b'{"a":' * 200_000,
    "a list": b"[]",
    "a string": b'"ADD"',
    "two texts": b"{}{}",
}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "VERSION"])
@pytest.mark.parametrize("stdin", HOSTILE.values(), ids=HOSTILE)
def test_hostile_standard_input_is_code_6(stdin: bytes, verb: str, suite_bin: str) -> None:
    answer = call(f"{suite_bin}/host-local", variables(verb, suite_bin), stdin)
    assert answer.code == 6
    assert answer.stderr == ""
    assert len(answer.stdout) < 1000


@pytest.mark.parametrize("name", MODULES)
def test_hostile_standard_input_of_every_plugin(name: str, suite_bin: str) -> None:
    for stdin in (b"", HOSTILE["deep lists"], HOSTILE["not UTF-8"]):
        assert call(f"{suite_bin}/{name}", variables("ADD", suite_bin), stdin).code == 6


def test_a_hundred_megabytes_are_not_read(suite_bin: str) -> None:
    """Neither all of it nor anything like it is ever in memory: the process may have 80 MB in all."""
    block = b'{"name": "' + b"a" * (1 << 20)
    plugin = subprocess.Popen(
        ["/bin/sh", "-c", 'ulimit -v 80000; exec "$0"', f"{suite_bin}/loopback"],
        env=variables("ADD", suite_bin),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert plugin.stdin
    assert plugin.stdout
    assert plugin.stderr
    sent = 0
    with plugin:
        try:
            while sent < 100 << 20:
                sent += os.write(plugin.stdin.fileno(), block)
        except BrokenPipeError:
            assert sent  # it has seen enough
        plugin.stdin.close()
        output, said = plugin.stdout.read(), plugin.stderr.read()
    assert (plugin.returncode, said) == (1, b"")
    assert json.loads(output)["code"] == 6
    assert sent < 2 * MAX_BYTES


@pytest.mark.parametrize("depth", [100, 300, 480, 600, 900, 980, 1000])
def test_depth_that_can_be_read_but_hardly_written(depth: int, suite_bin: str, tmp_path: Path) -> None:
    """The delegate's configuration has to be encoded again: served, or code 6, whatever the depth."""
    nested = json.loads("[" * depth + "]" * depth) if depth < 900 else None
    text = json.dumps({"name": "net", "cniVersion": "1.1.0", "subnetFile": str(tmp_path / "env")})[:-1]
    (tmp_path / "env").write_text(
        "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )
    delegate = '{"type": "host-local", "x": ' + "[" * depth + "]" * depth + "}"
    data = tmp_path / "data"
    ipam = json.dumps({"dataDir": str(tmp_path / "ipam")})
    stdin = f'{text}, "dataDir": {json.dumps(str(data))}, "ipam": {ipam}, "delegate": {delegate}}}'
    answer = call(f"{suite_bin}/flannel", variables("ADD", suite_bin), stdin.encode())
    if answer.status:
        assert answer.code == 6
        assert "nested too deeply" in answer.json["msg"]
        assert not data.exists() or not os.listdir(data)
    else:
        assert json.loads((data / "c1").read_bytes())["x"] == nested


def test_of_a_key_given_twice_the_last_counts(suite_bin: str) -> None:
    stdin = b'{"cniVersion": "9", "cniVersion": "1.1.0", "name": "../x", "name": "net"}'
    answer = call(f"{suite_bin}/loopback", variables("STATUS", suite_bin), stdin)
    assert (answer.status, answer.stdout) == (0, b"")


@pytest.mark.parametrize("hostile", ["../../etc", "a\nb", "a" * 4096 + "/", "\u00e9", "..", "a b"])
def test_hostile_names(hostile: str, suite_bin: str, tmp_path: Path) -> None:
    program, raw = f"{suite_bin}/host-local", host_local(tmp_path / "data")
    for verb in ("ADD", "CHECK", "DEL"):
        assert call(program, variables(verb, suite_bin, containerid=hostile), raw).code == 4
        assert call(program, variables(verb, suite_bin, ifname=hostile + "/"), raw).code == 4
    for verb in ("ADD", "CHECK", "DEL", "STATUS", "GC"):
        assert call(program, variables(verb, suite_bin), {**raw, "name": hostile}).code == 7
    assert not (tmp_path / "data").exists()


def test_a_name_that_is_no_text(suite_bin: str, tmp_path: Path) -> None:
    raw = json.dumps(host_local(tmp_path)).encode()
    for key in (b"CNI_CONTAINERID", b"CNI_IFNAME"):
        env = {name.encode(): value.encode() for name, value in variables("ADD", suite_bin).items()}
        env[key] = b"\xff/\xfe"
        done = subprocess.run(
            [f"{suite_bin}/host-local"], env=env, input=raw, capture_output=True, check=False
        )
        assert json.loads(done.stdout)["code"] == 4
        assert done.stderr == b""


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
@pytest.mark.parametrize("name", MODULES)
def test_the_plugins_own_namespace_is_code_8(name: str, verb: str, suite_bin: str, tmp_path: Path) -> None:
    env = variables(verb, suite_bin, netns="/proc/self/ns/net")
    assert call(f"{suite_bin}/{name}", env, host_local(tmp_path)).code == 8
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("verb", VERBS)
def test_closed_standard_input(verb: str, suite_bin: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" <&-', f"{suite_bin}/loopback"],
        env=variables(verb, suite_bin),
        capture_output=True,
        check=False,
    )
    assert json.loads(done.stdout)["code"] == 5
    assert done.stderr == b""


def test_closed_standard_error(suite_bin: str) -> None:
    for env in ({}, variables("ADD", suite_bin)):
        done = subprocess.run(
            ["/bin/sh", "-c", 'exec "$0" 2>&- </dev/null', f"{suite_bin}/loopback"],
            env=env,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1
        assert bool(done.stdout) is bool(env)


@pytest.mark.parametrize("name", ["dhcpd", "bridge.old", ".suite"])
def test_a_name_that_is_no_plugins(name: str, suite_bin: str, tmp_path: Path) -> None:
    program = tmp_path / name
    os.symlink(f"{suite_bin}/.suite", program)
    answer = call(str(program), variables("VERSION", suite_bin))
    assert (answer.status, answer.stdout) == (2, b"")
    assert answer.stderr.startswith(f"{name}: no plugin of that name")
    assert all(known in answer.stderr for known in MODULES)


def test_arguments_of_the_environment_reach_the_plugin(suite_bin: str, tmp_path: Path) -> None:
    program, raw = f"{suite_bin}/host-local", host_local(tmp_path)
    wanted = call(program, variables("ADD", suite_bin, args="IgnoreUnknown=1;A=b;IP=10.1.2.77"), raw)
    assert wanted.json["ips"][0]["address"] == "10.1.2.77/24"
    refused = call(program, variables("ADD", suite_bin, args="IP=10.1.2.78;A=b", containerid="c2"), raw)
    assert refused.code == 4
    assert not (tmp_path / "net" / "10.1.2.78").exists()
