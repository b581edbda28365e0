"""What a client needs to use a plane: where it is, whom to be, and kubectl.

Apart from the running plane itself, so that processes which did not start a plane can use it (the workers of
one test run share one): an `Access` goes through a JSON file.
"""

import json
import ssl
import subprocess
from dataclasses import dataclass, field, fields
from pathlib import Path

import httpx
import yaml

TOKEN_SECONDS = 24 * 3600


class PlaneError(Exception):
    """The control plane could not be started or used; the message says which program failed and how."""


@dataclass(kw_only=True)
class Access:
    """The way into a control plane, as its administrator.

    Attributes:
        directory: the plane's folder: certificates, kubeconfigs, logs.
        url: the API server, `https://127.0.0.1:…`; the same after its restart.
        ca: the certificate to verify the API server with (PEM).
        kubeconfig: the administrator's kubeconfig file.
        admin_token: the administrator's bearer token.
        pod_cidr: the range of the pods' addresses, which no other plane on this machine uses.
        kubectl_path: the kubectl of the plane's version.
    """

    directory: Path
    url: str
    ca: Path
    kubeconfig: Path
    admin_token: str = field(repr=False)
    pod_cidr: str
    kubectl_path: Path

    def save(self, path: Path) -> None:
        """Write it to a file that only this user can read; whoever sees the file sees all of it."""
        partial = path.with_suffix(".partial")
        write_private(
            partial, json.dumps({item.name: str(getattr(self, item.name)) for item in fields(Access)})
        )
        partial.replace(path)

    @staticmethod
    def load(path: Path) -> "Access":
        """Read what `save` wrote."""
        values = json.loads(path.read_text())
        paths = {name: Path(values[name]) for name in ("directory", "ca", "kubeconfig", "kubectl_path")}
        return Access(**{**values, **paths})

    def client(self, token: str | None = None) -> httpx.Client:
        """Return an HTTP client of the API, as the administrator or as the bearer of `token`."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token or self.admin_token}"},
            verify=ssl.create_default_context(cafile=str(self.ca)),
            timeout=30,
        )

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - as in subprocess
        """Run kubectl as the administrator and return what it prints.

        Raises:
            PlaneError: kubectl failed; the message is what it said.
        """
        command = [str(self.kubectl_path), f"--kubeconfig={self.kubeconfig}", *arguments]
        result = subprocess.run(command, input=input, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise PlaneError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def service_account_token(self, namespace: str, name: str) -> str:
        """Return a token of a ServiceAccount, valid for a day (TokenRequest API).

        Raises:
            PlaneError: there is no such ServiceAccount, or the API server refuses.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_SECONDS},
        }
        with self.client() as client:
            answer = client.post(path, json=request)
        if answer.status_code != httpx.codes.CREATED:
            raise PlaneError(f"no token for ServiceAccount {namespace}/{name}: {answer.text}")
        return str(answer.json()["status"]["token"])

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Write a kubeconfig that acts as a ServiceAccount, valid for a day, and return its path."""
        path = self.directory / f"kubeconfig-{namespace}-{name}.yaml"
        token = self.service_account_token(namespace, name)
        write_private(path, kubeconfig_text(self.url, self.ca, token, name))
        return path


def kubeconfig_text(url: str, ca: Path, token: str, user: str) -> str:
    """Return the text of a kubeconfig with one context, in which `user` bears `token`."""
    cluster = {"server": url, "certificate-authority": str(ca)}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "testbed", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user}}],
            "current-context": "testbed",
        }
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read."""
    path.touch(mode=0o600)
    path.write_text(text)
