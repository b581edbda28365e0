"""The arithmetic of one inference engine with continuous batching.

Rules of this module:

- Pure: no clock, no I/O, no randomness. The caller says what time it is, so the same class serves the
  simulated engines in real time and the benchmarks in virtual time.
- An iteration takes ``c0 + c1·sequences + c2·KV tokens + c3·prefill tokens``. The scheduler is vLLM's: first
  come first served, chunked prefill within a token budget, a bound on sequences, admission when the prompt
  fits the KV cache, the newest sequence preempted and recomputed when the cache runs out.
- The API speaks integer nanoseconds. Inside, time is integer picoseconds: coefficients are then exact, and
  advancing in many small steps gives the very same events as advancing in one.
- Event skipping: between admissions and finishes nothing but the KV cache changes, so a run of n decode
  iterations is an arithmetic series with a closed form. Cost grows with requests, not with tokens.
"""

import heapq
from collections import deque

from testbed.replica_models import ReplicaModel
from testbed.replica_records import Counters, Event, EventKind, Request, Run, Sequence, StepObserver, Steps

__all__ = ["Counters", "Event", "EventKind", "Replica", "ReplicaModel", "Request", "StepObserver", "Steps"]

_PS = 1000  # picoseconds in a nanosecond


class Replica:
    """One engine: submit requests, advance the time, collect events.

    Time never goes back: each call's time must be at or after that of the call before.
    """

    def __init__(self, model: ReplicaModel, observer: StepObserver | None = None) -> None:
        self.model = model
        self.counters = Counters()
        self._observer = observer
        self._now = 0
        self._order = 0
        self._step = 0  # iterations so far; sequences remember at which step they joined and will finish
        self._run: Run | None = None
        self._live: dict[Request, Sequence] = {}
        self._waiting: deque[Sequence] = deque()
        self._running: dict[Sequence, None] = {}  # in order of admission: the last one is the newest
        self._partial: Sequence | None = None  # the one sequence whose prefill is cut by the token budget
        self._finishing: list[tuple[int, int, Sequence]] = []  # heap; entries of preempted ones go stale
        self._withdrawn: list[Sequence] = []  # cancelled in mid-iteration: leave at its end
        self._decoding = 0
        self._decode_kv = 0
        self._reserved_kv = 0  # of prompts admitted and not yet completely computed
        self._events: list[Event] = []

    @property
    def now_ns(self) -> int:
        """The time up to which everything has been computed, rounded up to nanoseconds."""
        return _to_ns(self._now)

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """True when nothing runs and nothing waits."""
        return not (self._running or self._waiting)

    @property
    def kv_tokens(self) -> int:
        """Tokens that occupy the KV cache, prompts under prefill counted in full."""
        return self._decode_kv + self._reserved_kv

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache in use, 0..1."""
        return self.kv_tokens / self.model.kv_capacity_tokens

    def generated(self, request: Request) -> int:
        """Tokens of a request so far, as of the last call of `advance`; 0 for one that is not here."""
        sequence = self._live.get(request)
        if sequence is None:
            return request.output_tokens if request.finished_ns is not None else 0
        return self._generated(sequence)

    def submit(self, request: Request, now_ns: int) -> None:
        """Put a request at the end of the queue; it is considered when the current iteration ends.

        Raises:
            ValueError: the request is empty or can never fit the KV cache, or the time goes back.
        """
        self._check(request)
        self._catch_up(self._time(now_ns))
        if not self._waiting and len(self._running) < self.model.max_sequences:
            self._cut_run_short()
        self._order += 1
        sequence = Sequence(request, self._order, request.prompt_tokens)
        request.submitted_ns = now_ns
        self._live[request] = sequence
        self._waiting.append(sequence)

    def cancel(self, request: Request, now_ns: int) -> bool:
        """Withdraw a request: a waiting one at once, a running one at the end of its iteration.

        Returns:
            False if the request is not here.
        """
        self._catch_up(self._time(now_ns))
        sequence = self._live.pop(request, None)
        if sequence is None:
            return False
        request.finished_ns = None
        sequence.cancelled = True
        self.counters.cancelled += 1
        self._cut_run_short()
        if sequence not in self._running:
            self._waiting.remove(sequence)
        elif self._run is None:
            self._release(sequence)
        else:
            self._withdrawn.append(sequence)
        return True

    def next_event(self) -> int | None:
        """The end of the run of iterations under way, in nanoseconds; None when idle.

        No event comes before it unless something is submitted or cancelled; at it something changes (a first
        token, a finish, a preemption, a chunk of a long prompt), though `advance` may return no event.
        """
        run = self._run or self._plan()
        return None if run is None else _to_ns(run.start + run.duration(run.count))

    def next_finish(self) -> int | None:
        """A time before which no request finishes, in nanoseconds; None when idle.

        What is submitted meanwhile can only delay the others. It is the very next finish unless more has to
        be prefilled first than the next iteration does.
        """
        run = self._run or self._plan()
        if run is None:
            return None
        end = run.start + run.duration(run.count)
        if not run.chunks or self._waiting:
            return _to_ns(end)
        remaining = [sequence.request.output_tokens - sequence.generated for sequence, _ in run.chunks]
        if self._decoding:
            remaining.append(self._steps_to_finish())
        joining = [sequence.target for sequence, chunk in run.chunks if _completes(sequence, chunk)]
        decoding, kv = self._decoding + len(joining), self._decode_kv + self._decoding + sum(joining)
        steps = min(remaining) - 1
        if kv + steps * decoding + self._reserved_kv > self.model.kv_capacity_tokens:
            return _to_ns(end)  # a preemption would make the others faster
        then = Run(
            end, steps, self.model.iteration_ps(decoding, kv, 0), self.model.per_kv_token_ps * decoding, []
        )
        return _to_ns(end + then.duration(steps))

    def advance(self, to_ns: int) -> list[Event]:
        """Compute up to a time.

        Returns:
            The events since the last call, in order of (time, kind, order of submission).
        """
        self._catch_up(self._time(to_ns))
        events, self._events = self._events, []
        return events

    def _time(self, now_ns: int) -> int:
        time = now_ns * _PS
        if time < self._now - _PS:  # `next_event` rounds up by less than a nanosecond
            raise ValueError(f"time goes back: {now_ns} ns after {self.now_ns} ns")
        return max(time, self._now)

    def _check(self, request: Request) -> None:
        if request.prompt_tokens < 1 or request.output_tokens < 1:
            raise ValueError(f"request {request.id}: prompt and output need at least one token each")
        total = request.prompt_tokens + request.output_tokens
        if total > self.model.kv_capacity_tokens:
            raise ValueError(
                f"request {request.id}: prompt plus output are {total} tokens, the KV cache of "
                f"{self.model.name} holds {self.model.kv_capacity_tokens}"
            )

    def _catch_up(self, to: int) -> None:
        # A boundary that falls on `to` is settled but the next run is not planned yet: what is submitted at
        # this very instant still gets into the next iteration.
        while (run := self._run or (self._plan() if self._now < to else None)) is not None:
            end = run.start + run.duration(run.count)
            if end > to:
                self._account(run, run.completed_by(to))
                break
            self._account(run, run.count)
            self._now = end
            self._settle(run)
        self._now = max(self._now, to)

    def _cut_run_short(self) -> None:
        """End the run under way with the iteration under way, so that the queue is looked at again."""
        run = self._run
        if run is None:
            return
        steps = run.completed_by(self._now)
        inside = run.start + run.duration(steps) < self._now or steps == 0
        run.count = min(run.count, steps + 1 if inside else steps)
        if run.count == steps:
            self._settle(run)

    def _account(self, run: Run, done: int) -> None:
        """Book the decode tokens of the iterations completed, up to the `done`-th."""
        steps = done - run.done
        if steps == 0:
            return
        decoding = self._decoding
        first = run.first + run.increment * run.done
        self._step += steps
        self._decode_kv += steps * decoding
        counters = self.counters
        counters.iterations += steps
        counters.generated_tokens += steps * decoding
        elapsed = run.duration(done) - run.duration(run.done)
        counters.busy_ps += elapsed
        counters.inter_token_ps += elapsed * decoding
        counters.inter_tokens += steps * decoding
        run.done = done
        if self._observer is not None:
            tokens = decoding + sum(_completes(sequence, chunk) for sequence, chunk in run.chunks)
            self._observer.on_steps(Steps(steps, decoding, tokens, first, run.increment))

    def _settle(self, run: Run) -> None:
        """The run is over: prompts join the batch, finished and withdrawn sequences leave it."""
        self._run = None
        for sequence, chunk in run.chunks:
            self._prefilled(sequence, chunk)
        heap = self._finishing
        while heap and heap[0][0] <= self._step:
            step, _, sequence = heapq.heappop(heap)
            if sequence.finish_step == step:
                self._finish(sequence)
        for sequence in self._withdrawn:
            if sequence in self._running:
                self._release(sequence)
        self._withdrawn.clear()

    def _prefilled(self, sequence: Sequence, chunk: int) -> None:
        self.counters.prefill_tokens += chunk
        sequence.computed += chunk
        if sequence.computed < sequence.target:
            self._partial = sequence
            return
        if self._partial is sequence:
            self._partial = None
        request = sequence.request
        if sequence.generated == 0:
            self.counters.prompt_tokens += request.prompt_tokens
            self._emit(EventKind.FIRST_TOKEN, sequence)
        else:
            self._gap(self._now - sequence.last_token_ps)
        self.counters.generated_tokens += 1
        sequence.generated += 1
        self._join(sequence)

    def _gap(self, duration: int) -> None:
        """A preempted sequence got its next token."""
        self.counters.inter_token_ps += duration
        self.counters.inter_tokens += 1
        if self._observer is not None:
            self._observer.on_gap(duration)

    def _join(self, sequence: Sequence) -> None:
        self._reserved_kv -= sequence.target
        self._decode_kv += sequence.target
        self._decoding += 1
        sequence.joined_step = self._step
        sequence.finish_step = self._step + sequence.request.output_tokens - sequence.generated
        heapq.heappush(self._finishing, (sequence.finish_step, sequence.order, sequence))

    def _finish(self, sequence: Sequence) -> None:
        self._release(sequence)
        if sequence.cancelled:
            return
        self.counters.finished += 1
        del self._live[sequence.request]
        self._emit(EventKind.FINISHED, sequence)

    def _emit(self, kind: EventKind, sequence: Sequence) -> None:
        if sequence.cancelled:
            return
        request = sequence.request
        time_ns = _to_ns(self._now)
        if kind is EventKind.FIRST_TOKEN:
            request.first_token_ns = time_ns
        else:
            request.finished_ns = time_ns
        self._events.append(Event(time_ns, kind, request))

    def _generated(self, sequence: Sequence) -> int:
        if sequence.finish_step < 0:
            return sequence.generated
        return sequence.generated + self._step - sequence.joined_step

    def _release(self, sequence: Sequence) -> None:
        """Take a sequence out of the batch and free its KV cache."""
        del self._running[sequence]
        if sequence.finish_step >= 0:
            self._decode_kv -= sequence.target + self._step - sequence.joined_step
            self._decoding -= 1
            sequence.finish_step = -1
            return
        self._reserved_kv -= sequence.target
        if self._partial is sequence:
            self._partial = None

    def _plan(self) -> Run | None:
        """Schedule the next run of iterations from now on; None when there is nothing to do."""
        preempted = self._make_room()
        chunks = self._chunks(admit=not preempted)
        decoding = self._decoding
        if not decoding and not chunks:
            return None
        model = self.model
        context = self._decode_kv + sum(sequence.computed for sequence, _ in chunks)
        prefill = sum(chunk for _, chunk in chunks)
        first = model.iteration_ps(decoding + len(chunks), context, prefill)
        count = 1 if chunks else self._steps_until_change()
        self._run = Run(self._now, count, first, model.per_kv_token_ps * decoding, chunks)
        return self._run

    def _make_room(self) -> bool:
        """Preempt the newest sequences until every decoding one can grow by a token."""
        preempted = False
        while self.kv_tokens + self._decoding > self.model.kv_capacity_tokens:
            self._preempt(next(reversed(self._running)))
            preempted = True
        return preempted

    def _preempt(self, sequence: Sequence) -> None:
        sequence.generated = self._generated(sequence)
        self._release(sequence)
        sequence.target = sequence.request.prompt_tokens + sequence.generated
        sequence.computed = 0
        sequence.last_token_ps = self._now
        sequence.request.preemptions += 1
        self.counters.preemptions += 1
        self._waiting.appendleft(sequence)

    def _chunks(self, *, admit: bool) -> list[tuple[Sequence, int]]:
        """What the next iteration prefills: the partial prompt first, then the queue in order."""
        budget = self.model.max_batched_tokens - self._decoding
        chunks: list[tuple[Sequence, int]] = []
        if self._partial is not None:
            chunks.append((self._partial, min(budget, self._partial.target - self._partial.computed)))
            budget -= chunks[0][1]
        while admit and budget > 0 and self._fits():
            sequence = self._admit()
            chunks.append((sequence, min(budget, sequence.target)))
            budget -= chunks[-1][1]
        return chunks

    def _fits(self) -> bool:
        if not self._waiting or len(self._running) >= self.model.max_sequences:
            return False
        needed = self.kv_tokens + self._decoding + self._waiting[0].target
        return needed <= self.model.kv_capacity_tokens

    def _admit(self) -> Sequence:
        sequence = self._waiting.popleft()
        self._running[sequence] = None
        self._reserved_kv += sequence.target
        if sequence.request.scheduled_ns is None:
            sequence.request.scheduled_ns = _to_ns(self._now)
        return sequence

    def _steps_until_change(self) -> int:
        """Decode iterations until the first sequence finishes or the KV cache is full."""
        room = (self.model.kv_capacity_tokens - self.kv_tokens) // self._decoding
        return min(self._steps_to_finish(), room)

    def _steps_to_finish(self) -> int:
        """Iterations until the first of the decoding sequences finishes."""
        heap = self._finishing
        while heap[0][2].finish_step != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] - self._step


def _completes(sequence: Sequence, chunk: int) -> int:
    """Tokens that vLLM books for a prefill chunk: prompt and first token, once the prompt is complete."""
    if sequence.computed + chunk < sequence.target:
        return 0
    return 1 + (sequence.request.prompt_tokens if sequence.generated == 0 else 0)


def _to_ns(time_ps: int) -> int:
    return -(-time_ps // _PS)
