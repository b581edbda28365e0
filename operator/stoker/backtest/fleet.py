"""The fleet that would have run: replicas that start late, and cost from creation to deletion.

Rules of this module:

* A replica serves a start-up time after it was created, and costs from the first second.
* Those leave first that do not serve yet, the youngest of them first. One that leaves stops serving and
  costing at once: how long its last requests take, nobody recorded.
* GPUs are there when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Fleet:
    """Replicas in virtual time.

    Args:
        start_up: seconds from creation to serving.
    """

    start_up: float
    created: list[float] = field(default_factory=list)
    """When those that exist were created, Unix s, the oldest first."""
    removed: int = 0
    """How many that served have left."""
    started: int = 0

    def begin(self, replicas: int, at: float) -> None:
        """These serve already."""
        self.created = [at - self.start_up] * replicas

    def scale(self, replicas: int, at: float) -> None:
        """Create or remove replicas until there are so many."""
        while len(self.created) < replicas:
            self.created.append(at)
            self.started += 1
        while len(self.created) > replicas:
            self.removed += self.created.pop() + self.start_up <= at

    def serving(self, at: float) -> int:
        """How many have started up."""
        return sum(created + self.start_up <= at for created in self.created)
