"""An apiserver, or what stands before it, that answers with anything; tokens and certificates replaced."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from flanneld.kube.client import Client, GoneError
from flanneld.kube.manager import KubeManager
from flanneld.lease import Added, Snapshot
from flanneld.manager import ManagerError
from flanneld.options import Options
from integration.watched import watching
from tests.apiserver import JSON, answer, serving
from tests.certificates import certify

if TYPE_CHECKING:
    from pathlib import Path

NODE = {
    "kind": "Node",
    "apiVersion": "v1",
    "metadata": {"name": "n1", "uid": "1", "resourceVersion": "8"},
    "spec": {"podCIDR": "10.244.1.0/24"},
}
LIST = {"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": [NODE]}
GONE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old", "code": 410}
STRANGER = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "Unauthorized", "code": 401}

ANSWERS = {
    "a page": answer("<html>Bad gateway</html>", "200 OK", "Content-Type: text/html"),
    "a refusal as a page": answer("<html>Bad gateway</html>", "502 Bad Gateway", "Content-Type: text/html"),
    "a refusal without a type": answer("", "503 Service Unavailable"),
    "a refusal that is no JSON": answer("later", "503 Service Unavailable", JSON),
    "a refusal that is another JSON": answer("[1]", "503 Service Unavailable", JSON),
    "a refusal nested deeply": answer("[" * 100_000, "503 Service Unavailable", JSON),
    "too many requests": answer("{}", "429 Too Many Requests", JSON, "Retry-After: 1"),
    "another place": answer("", "302 Found", "Location: http://127.0.0.1:1/"),
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half of it": answer("{", "200 OK", JSON)[:-1],
    "another object": answer('{"items": 5, "metadata": {"name": 5}}', "200 OK", JSON),
    "no version": answer('{"items": [], "spec": 5}', "200 OK", JSON),
    "nested deeply": answer('{"x": ' + "[" * 100_000, "200 OK", JSON),
    "no UTF-8": answer(
        b'{"items": [{"metadata": {"name": "\xff"}}], "metadata": {"name": "\xff"}}', "200 OK", JSON
    ),
}


@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_of_any_form_is_an_error_that_passes(said: bytes) -> None:
    async def scenario() -> None:
        async with serving(lambda _head: said) as port:
            client = Client(Options(kube_api_url=f"http://127.0.0.1:{port}"))
            for ask in (client.nodes(), client.node("n1"), client.patch_status("n1", {})):
                with pytest.raises(ManagerError):
                    await ask
            with pytest.raises((ManagerError, StopAsyncIteration)):
                await anext(client.changes("1"))
            await client.close()

    asyncio.run(scenario())


def test_a_watch_goes_on_after_answers_of_every_form() -> None:
    """The last of them is a list of one node with a lease, and a watch that tells of another."""
    annotations = {
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": "192.0.2.1",
        "flannel.alpha.coreos.com/backend-type": "vxlan",
    }
    bad = {**annotations, "flannel.alpha.coreos.com/backend-data": "[" * 100_000}
    broken = [
        *({**NODE, "metadata": {"name": "n3", "resourceVersion": "8", "annotations": bad}},),
        {
            **NODE,
            "spec": {"podCIDR": "1.2.3.4/" + "9" * 5000},
            "metadata": {"name": "n4", "annotations": annotations},
        },
        {**NODE, "spec": {"podCIDR": "fd00::/64"}, "metadata": {"name": "n5", "annotations": annotations}},
    ]
    nodes = [{**NODE, "metadata": {"name": "n1", "annotations": annotations}}, *broken]
    new = {**NODE, "metadata": {"name": "n2", "resourceVersion": "9", "annotations": annotations}}
    lines = [{"type": "MODIFIED", "object": node} for node in (*broken, new)]
    lists = [*ANSWERS.values(), answer(json.dumps({**LIST, "items": nodes}), "200 OK", JSON)]
    watches = [*ANSWERS.values(), answer("".join(json.dumps(line) + "\n" for line in lines), "200 OK", JSON)]

    def reply(head: str) -> bytes:
        answers = watches if "watch=true" in head else lists
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def scenario() -> None:
        async with serving(reply) as port:
            options = Options(kube_api_url=f"http://127.0.0.1:{port}")
            made = KubeManager(Client(options), options)
            async with watching(made) as watched:
                await watched.until(lambda: len(watched.leases) == 2, 60)
                snapshots = [event for event in watched.events if isinstance(event, Snapshot)]
                assert snapshots
                assert [event.origin for event in watched.events if isinstance(event, Added)] == ["n2"]
            await made.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flanneld.kube.manager.Pauses.next", lambda _pauses: 0.01)
        asyncio.run(scenario())


def test_a_version_that_is_forgotten_is_known_from_other_refusals() -> None:
    async def scenario() -> None:
        async with serving(lambda _head: answer(json.dumps(GONE), "410 Gone", JSON)) as port:
            client = Client(Options(kube_api_url=f"http://127.0.0.1:{port}"))
            with pytest.raises(GoneError, match="refuses: too old"):
                await anext(client.changes("1"))
            await client.close()

    asyncio.run(scenario())


def kubeconfig(folder: Path, port: int, scheme: str = "http") -> Options:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": f"{scheme}://127.0.0.1:{port}",
                    "certificate-authority": f"{folder}/ca.crt",
                },
            }
        ],
        "users": [{"name": "u", "user": {"tokenFile": f"{folder}/token"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (folder / "config").write_text(json.dumps(document), encoding="ascii")
    return Options(kubeconfig_file=f"{folder}/config")


def test_a_token_is_read_again_when_it_is_known_no_more(tmp_path: Path) -> None:
    """A kubelet replaces a service account's token every hour, and the old one runs out."""
    valid = "one"

    def reply(head: str) -> bytes:
        if f"authorization: bearer {valid}\r\n" in head.lower():
            return answer(json.dumps(LIST if "nodes?" in head else NODE), "200 OK", JSON)
        return answer(json.dumps(STRANGER), "401 Unauthorized", JSON)

    async def scenario() -> None:
        nonlocal valid
        certify(tmp_path, "ca")
        (tmp_path / "token").write_text("one\n")
        async with serving(reply) as port:
            client = Client(kubeconfig(tmp_path, port))
            assert (await client.node("n1")).metadata.uid == "1"
            valid = "two"
            (tmp_path / "token").write_text("two")
            assert len((await client.nodes())[0]) == 1
            valid = "three"
            with pytest.raises(ManagerError, match="refuses: Unauthorized"):
                await client.node("n1")
            (tmp_path / "token").unlink()
            with pytest.raises(ManagerError, match=r"does not answer.*token not found"):
                await client.node("n1")
            (tmp_path / "token").write_text("no\nsuch: token")
            with pytest.raises(ManagerError):
                await client.node("n1")
            (tmp_path / "token").write_text("three")
            assert (await client.node("n1")).metadata.uid == "1"
            await client.close()

    asyncio.run(scenario())


def test_another_authority_is_trusted_when_its_file_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        old, new = certify(tmp_path, "old"), certify(tmp_path, "new")
        (tmp_path / "ca.crt").write_bytes((tmp_path / "old.crt").read_bytes())
        (tmp_path / "token").write_text("one")
        reply = answer(json.dumps(NODE), "200 OK", JSON)
        async with serving(lambda _head: reply, old) as port:
            client = Client(kubeconfig(tmp_path, port, "https"))
            assert (await client.node("n1")).metadata.uid == "1"
        async with serving(lambda _head: reply, new) as port:
            kubeconfig(tmp_path, port, "https")  # and another address, of another apiserver
            for content in (
                None,
                b"",
                b"rubbish",
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            ):
                if content is None:
                    (tmp_path / "ca.crt").unlink()
                else:
                    (tmp_path / "ca.crt").write_bytes(content)
                with pytest.raises(ManagerError):
                    await client.node("n1")
            (tmp_path / "ca.crt").write_bytes((tmp_path / "new.crt").read_bytes())
            assert (await client.node("n1")).metadata.uid == "1"
            for content in (b"", b"{", b"[]", b'{"clusters": 5}'):
                (tmp_path / "config").write_bytes(content)
                await client.leave()
                assert (await client.node("n1")).metadata.uid == "1"
            await client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("content", [None, "", "{", "[]", "clusters: 5", "a: b: c", "contexts: []"])
def test_a_kubeconfig_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config").write_text(content)
    with pytest.raises(ManagerError, match="identity are not known"):
        Client(Options(kubeconfig_file=f"{tmp_path}/config"))


def test_a_request_while_the_connections_are_left_twice_is_an_error_that_passes() -> None:
    """The first one left is closed by then."""

    async def scenario() -> None:
        page = {**LIST, "metadata": {"resourceVersion": "7", "continue": "more"}}
        asked = 0

        def reply(_head: str) -> bytes:
            nonlocal asked
            asked += 1
            return answer(json.dumps(page if asked < 9 else LIST), "200 OK", JSON)

        async with serving(reply) as port:
            client = Client(Options(kube_api_url=f"http://127.0.0.1:{port}"))
            listing = asyncio.create_task(client.nodes())
            while asked < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await client.leave()
            await client.leave()
            with pytest.raises(ManagerError):
                await listing
            assert len((await client.nodes())[0]) >= 1
            await client.close()

    asyncio.run(scenario())
