"""What schedulers, registries and engines say when something fails, in words that lead to a remedy.

Each function reads one kind of text and returns what is wrong and what to do. The texts are those of
Kubernetes 1.37 and containerd, observed; what is not recognised is quoted, never guessed at.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from stoker.api.conditions import Reason

QUOTE: Final = 240
"""Longest quotation, in characters, of what another program said."""


class Cause(NamedTuple):
    """Why a replica does not serve."""

    reason: Reason
    what: str
    """What is wrong, as the rest of a sentence about the pod."""
    do: str
    """What to do about it, as a sentence without its full stop."""


def quote(text: str) -> str:
    """One line of bounded length; of a long text the end, where programs put the point."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= QUOTE else f"…{line[1 - QUOTE :]}"


# --- The scheduler -------------------------------------------------------------------------------


class _Obstacle(NamedTuple):
    """One kind of reason why a node is passed over."""

    pattern: re.Pattern[str]
    reason: Reason
    what: str
    """With `{0}` for what the pattern's group found."""
    do: str


def _obstacle(pattern: str, reason: Reason, what: str, do: str) -> _Obstacle:
    return _Obstacle(re.compile(pattern), reason, what, do)


_TAINT: Final = "with a taint that is not tolerated"
_OBSTACLES: Final = (
    _obstacle(
        r"Insufficient (\S+/\S+)",
        Reason.INSUFFICIENT_GPUS,
        "without enough free {0}",
        "add nodes with {0}, or make another fleet smaller",
    ),
    _obstacle(
        r"Insufficient (\S+)",
        Reason.UNSCHEDULABLE,
        "without enough free {0}",
        "lower the request for {0} in template.spec, or add larger nodes",
    ),
    _obstacle(
        r"(taint)",
        Reason.UNSCHEDULABLE,
        _TAINT,
        "add the taint to accelerators[].tolerations",
    ),
    _obstacle(
        r"([Vv]olume|PersistentVolumeClaim)",
        Reason.UNSCHEDULABLE,
        "where its volume cannot be used",
        "check the claim with kubectl describe pvc",
    ),
    _obstacle(r"(unschedulable)", Reason.UNSCHEDULABLE, "cordoned", "uncordon a node with kubectl uncordon"),
    _obstacle(r"(Too many pods)", Reason.UNSCHEDULABLE, "full of pods", "add nodes"),
    _obstacle(
        r"(affinity|selector)",
        Reason.NO_SUCH_NODE,
        "without the labels asked for",
        "correct accelerators[].nodeSelector, or label the nodes",
    ),
    _obstacle(
        r"(.+)",
        Reason.UNSCHEDULABLE,
        "that say {0!r}",
        "compare the pod's requests, tolerations and affinity with kubectl describe nodes",
    ),
)


def scheduling(message: str) -> Cause:
    """Read the message of `PodScheduled=False:Unschedulable`.

    The scheduler counts nodes by obstacle: `0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s)
    were unschedulable. preemption: …`. All are reported; the first of `_OBSTACLES` gives the reason.
    """
    if claim := re.search(r'persistentvolumeclaim "([^"]+)" (not found|is being deleted)', message):
        what = f"the PersistentVolumeClaim {claim[1]!r} that it mounts {_GONE[claim[2]]}"
        return Cause(Reason.CONFIG_MISSING, what, "create it, or correct its name in the spec")
    verdict = message.partition(" preemption:")[0].partition("nodes are available: ")[2].rstrip(".")
    counted = re.findall(r"(?:^|, )(\d+) (.+?)(?=, \d+ |$)", verdict)
    if not counted:
        do = "compare the pod's spec with kubectl describe nodes"
        return Cause(Reason.UNSCHEDULABLE, f"no node fits: {quote(message)}", do)
    blocked = sorted(_blocked(count, text) for count, text in counted)
    # A node without the labels was never meant: it is no obstacle unless all nodes are like that.
    meant = [b for b in blocked if b.reason is not Reason.NO_SUCH_NODE] or blocked
    nodes = quote(", ".join(b.what for b in blocked))
    # Which taint is not said, and taints are looked at before labels: it may be a control plane's node's.
    told = blocked if all(_TAINT in b.what for b in meant) else meant
    remedies = list(dict.fromkeys(b.do for b in told))
    return Cause(meant[0].reason, f"no node fits: {nodes}", "; ".join(remedies[:2]))


_GONE: Final = {"not found": "does not exist", "is being deleted": "is being deleted"}


class _Blocked(NamedTuple):
    """So many nodes that one obstacle rules out."""

    rank: int
    what: str
    reason: Reason
    do: str


def _blocked(count: str, text: str) -> _Blocked:
    rank, obstacle, which = next(
        (rank, obstacle, found[1])
        for rank, obstacle in enumerate(_OBSTACLES)
        if (found := obstacle.pattern.search(text)) is not None
    )
    what, do = obstacle.what.format(which), obstacle.do.format(which)
    return _Blocked(rank, f"{count} {what}", obstacle.reason, do)


# --- Registries ----------------------------------------------------------------------------------

_IMAGE: Final = re.compile(r'image(?: tag| name)? "([^"]+)"')
_PREAMBLE: Final = re.compile(
    r'(?:.*(?:image(?: tag| name)?|reference) "[^"]*": )?(?:ErrImagePull: )?'
    r"(?:rpc error: code = \w+ desc = )?",
    re.DOTALL,
)
_PULL_REMEDIES: Final = (
    (
        r"40[13]\b|[Uu]nauthorized|[Dd]enied|no basic auth",
        "add a pull secret as template.spec.imagePullSecrets",
    ),
    (r"429\b|[Tt]oo [Mm]any", "wait, or pull through a mirror: the registry limits how often"),
    (r"[Nn]ot ?[Ff]ound|manifest unknown", "correct the image's name or tag"),
    (r"invalid reference|InvalidImageName", "correct the image's name"),
    (r"not present with pull policy", "load the image onto the node, or change its imagePullPolicy"),
    (r"no space left", "free disk on the node, or give it more"),
    (r"containerd?\.sock|c\.sock|reading from server: EOF", "look at the node's container runtime"),
    (r"", "check that the node can reach the registry"),
)


def image_pull(message: str) -> Cause:
    """Read why an image could not be pulled: which image, what was said about it, and what that calls for."""
    image = _IMAGE.search(message)
    said = _PREAMBLE.sub("", message, count=1)
    do = next(remedy for pattern, remedy in _PULL_REMEDIES if re.search(pattern, message))
    which = f"image {image[1]}" if image else "an image"
    return Cause(Reason.IMAGE_PULL_FAILED, f"{which} cannot be pulled: {quote(said)}", do)


# --- Engines -------------------------------------------------------------------------------------

_GPU_MEMORY: Final = re.compile(
    r"CUDA out of memory|OutOfMemoryError|HIP out of memory|No available memory for the cache blocks"
    r"|is less than desired GPU memory utilization|larger than the available KV cache memory"
)
_CRASH_REMEDIES: Final = (
    (
        r"GatedRepo|gated repo|40[13] Client Error|Access to model",
        "set model.secretName to a Secret whose key HF_TOKEN holds a token with access to the model",
    ),
    (r"RepositoryNotFound|404 Client Error|not a valid model identifier", "correct model.uri"),
    (r"unrecognized arguments|error: argument|invalid choice", "correct engine.args"),
    (r"No space left on device", "enlarge storage.cache, or use a claim with more room"),
    (r"NVIDIA driver|CUDA driver version|libcuda", "use an image that fits the node's GPU driver"),
)


def gpu_memory(message: str) -> bool:
    """Whether an engine's last words are about GPU memory."""
    return _GPU_MEMORY.search(message) is not None


def crash_remedy(message: str, exit_code: int) -> str:
    """What an engine's last words, or the way it ended, call for."""
    for pattern, remedy in _CRASH_REMEDIES:
        if re.search(pattern, message):
            return remedy
    if exit_code in {137, 143}:
        return "it was stopped from outside: look for failed probes with kubectl describe pod"
    return "read its log with kubectl logs --previous"


def last_words(message: str) -> str:
    """The line of a log's end that says what went wrong: the last error, else the last line."""
    lines = [line for line in message.splitlines() if line.strip()]
    # vLLM ends with "Engine core initialization failed. See root cause above.": the cause is what is wanted.
    errors = [
        line for line in lines if re.search(r"(Error|Exception)\b|error:", line) and "root cause" not in line
    ]
    return quote((errors or lines or [""])[-1])
