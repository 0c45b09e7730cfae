"""A pod and the calls of CRI on it."""

from __future__ import annotations

from typing import Any

from cri_api.v1 import api_pb2

from integration.runtime import images

CALL_TIMEOUT = 120.0
"""Seconds that one call of CRI may take."""
PING = (images.BUSYBOX, "ping", "-c", "1", "-W", "20")


class Pod:
    """A pod sandbox that runs.

    Args:
        runtime: the stub of CRI's RuntimeService.
        config: the PodSandboxConfig it was made with.
        sandbox: its id.
    """

    def __init__(self, runtime: Any, config: Any, sandbox: str) -> None:
        self.id = sandbox
        self._runtime = runtime
        self._config = config
        self._container = ""

    def addresses(self) -> list[str]:
        """Return the addresses that containerd knows, the one it calls the pod's first."""
        request = api_pb2.PodSandboxStatusRequest(pod_sandbox_id=self.id)
        network = self._runtime.PodSandboxStatus(request, timeout=CALL_TIMEOUT).status.network
        return [network.ip, *(more.ip for more in network.additional_ips)]

    def serve(self) -> None:
        """Start a container in the pod: an HTTP server with one page, the pod's name."""
        config = api_pb2.ContainerConfig(
            metadata=api_pb2.ContainerMetadata(name="server"),
            image=api_pb2.ImageSpec(image=images.NAME),
            command=list(images.SERVE),
        )
        request = api_pb2.CreateContainerRequest(
            pod_sandbox_id=self.id, config=config, sandbox_config=self._config
        )
        self._container = self._runtime.CreateContainer(request, timeout=CALL_TIMEOUT).container_id
        start = api_pb2.StartContainerRequest(container_id=self._container)
        self._runtime.StartContainer(start, timeout=CALL_TIMEOUT)
        page = f"echo {self._config.metadata.name} >{images.PAGE}"
        self.run(images.BUSYBOX, "sh", "-c", page)

    def run(self, *command: str) -> str:
        """Run a program in the container that `serve` started; return what it printed.

        Raises:
            AssertionError: it failed.
        """
        request = api_pb2.ExecSyncRequest(container_id=self._container, cmd=command, timeout=60)
        done = self._runtime.ExecSync(request, timeout=CALL_TIMEOUT)
        said = done.stdout.decode()
        assert done.exit_code == 0, f"{' '.join(command)}: {done.exit_code}\n{said}{done.stderr.decode()}"
        return str(said)

    def ping(self, address: str) -> None:
        """Demand an answer from an address to a ping out of the container."""
        self.run(*PING, address)

    def get_page(self, host: str, port: int) -> str:
        """Fetch a page over HTTP from within the container; return it without its headers."""
        request = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | {images.BUSYBOX} nc -w 5 {host} {port}"
        return self.run(images.BUSYBOX, "sh", "-c", request).partition("\r\n\r\n")[2].strip()

    def stop(self) -> None:
        """Stop the pod, which takes its network away."""
        request = api_pb2.StopPodSandboxRequest(pod_sandbox_id=self.id)
        self._runtime.StopPodSandbox(request, timeout=CALL_TIMEOUT)

    def remove(self) -> None:
        """Remove the pod, which stops it first."""
        request = api_pb2.RemovePodSandboxRequest(pod_sandbox_id=self.id)
        self._runtime.RemovePodSandbox(request, timeout=CALL_TIMEOUT)
