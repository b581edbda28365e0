"""Where the API server is and who Stoker is to it: a pod's service account, or a kubeconfig.

The ``kubernetes`` package reads both. In a pod it re-reads the projected token each minute by itself; a
kubeconfig's token (from a file, an exec plugin or an identity provider) it would read once only, so
``keep_fresh`` loads it again now and then: bound tokens live for an hour by default.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from stoker.clients.errors import ClientError

logger = logging.getLogger(__name__)

RELOAD_SECONDS = 60.0
"""The period at which the ``kubernetes`` package re-reads a service account's token."""


class UnconfiguredError(ClientError):
    """There is no usable kubeconfig, and this is no pod with a service account."""


async def load(kubeconfig: Path | None, context: str | None, *, connections: int) -> Configuration:
    """The configuration of the API client.

    Args:
        kubeconfig: a kubeconfig; None takes the pod's service account, else the user's default kubeconfig.
        context: the kubeconfig's context; None takes its current one.
        connections: how many connections may be open at a time.

    Raises:
        UnconfiguredError: says what to set.
    """
    # The generated class hides a process-wide default behind its constructor; type.__call__ is the package's
    # own way to get a configuration that belongs to this client alone (aio/config/kube_config.py).
    configuration: Configuration = type.__call__(Configuration)
    configuration.connection_pool_maxsize = connections
    # Retries are the controller's business: it knows which calls still matter.
    configuration.retries = None
    # Else aiohttp looks for a ~/.netrc before every request, in a thread, and what it finds there collides
    # with the bearer token. A proxy is the kubeconfig's to name.
    configuration.client_session_kwargs = {"trust_env": False}
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        _in_cluster(configuration)
    else:
        await _from_file(kubeconfig, context, configuration)
    return configuration


async def keep_fresh(configuration: Configuration, kubeconfig: Path | None, context: str | None) -> None:
    """Reload a kubeconfig's credentials for ever. A failure keeps the old ones and is logged."""
    while True:
        await asyncio.sleep(RELOAD_SECONDS)
        try:
            await _from_file(kubeconfig, context, configuration)
        except UnconfiguredError as error:
            logger.warning(
                "The kubeconfig could not be read again, its last credentials stay in use: %s", error
            )


def _in_cluster(configuration: Configuration) -> None:
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise UnconfiguredError(
            f"this is a pod, but its service account cannot be read ({error}): "
            "set automountServiceAccountToken, or STOKER_KUBECONFIG",
        ) from error


async def _from_file(kubeconfig: Path | None, context: str | None, configuration: Configuration) -> None:
    if kubeconfig is not None and not await asyncio.to_thread(kubeconfig.is_file):
        raise UnconfiguredError(
            f"{kubeconfig} cannot be used (there is no such file): set STOKER_KUBECONFIG to a kubeconfig"
        )
    arguments: dict[str, Any] = {"context": context, "client_configuration": configuration}
    try:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=None if kubeconfig is None else str(kubeconfig), persist_config=False, **arguments
        )
    except Exception as error:  # the loader raises KeyError, TypeError, yaml errors … for a malformed file
        where = kubeconfig or "the default kubeconfig"
        what = f", context {context!r}" if context else ""
        why = " ".join(f"{type(error).__name__}: {error}".split())
        mend = (
            "set STOKER_KUBE_CONTEXT to a context of this kubeconfig"
            if context
            else "set STOKER_KUBECONFIG to a readable kubeconfig, or run in a pod with a service account"
        )
        raise UnconfiguredError(f"{where}{what} cannot be used ({why}): {mend}") from error
