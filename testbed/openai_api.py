"""The shapes of the OpenAI-style API that inference engines serve: reading requests, writing answers.

Rules of this module:

- Pure text and numbers: no sockets, no engine.
- What the engine would generate is `WORD` over and over; lengths are what matters. Without a header that
  gives the prompt's exact length (`PROMPT_TOKENS_HEADER`), about four characters count as one token.
- The output is as long as ``max_tokens`` allows: simulated engines never stop early.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DONE", "PROMPT_TOKENS_HEADER", "WORD", "ApiError", "Ask", "Writer", "error_body", "read_ask"]

WORD = " tok"
PROMPT_TOKENS_HEADER = "x-testbed-prompt-tokens"
DONE = b"data: [DONE]\n\n"

_CHARACTERS_PER_TOKEN = 4
_DEFAULT_MAX_TOKENS = {False: 16, True: 256}  # completions: OpenAI's default; chat: some bound is needed


class ApiError(Exception):
    """The request is refused with an HTTP status; the message says what to change."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for a completion.

    Attributes:
        chat: for ``/v1/chat/completions``.
        prompt_tokens: length of the prompt.
        max_tokens: length of the output.
        stream: answer as server-sent events.
        include_usage: add a last chunk with the usage.
        continuous_usage: put the usage so far into every chunk (a vLLM extension).
    """

    chat: bool
    prompt_tokens: int
    max_tokens: int
    stream: bool
    include_usage: bool
    continuous_usage: bool


def read_ask(body: bytes, headers: Mapping[str, str], served_name: str, *, chat: bool) -> Ask:
    """Read a request's body.

    Raises:
        ApiError: it is not JSON, names another model, or asks for what is not served.
    """
    fields = _fields(body)
    if fields.get("model", served_name) != served_name:
        raise ApiError(
            404, f"The model `{fields['model']}` does not exist; this engine serves `{served_name}`.", "model"
        )
    if fields.get("n", 1) != 1:
        raise ApiError(400, "n must be 1.", "n")
    options = fields.get("stream_options") or {}
    return Ask(
        chat=chat,
        prompt_tokens=_prompt_tokens(fields, headers, chat=chat),
        max_tokens=_max_tokens(fields, chat=chat),
        stream=bool(fields.get("stream")),
        include_usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
    )


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return fields


def _max_tokens(fields: Mapping[str, Any], *, chat: bool) -> int:
    value = fields.get("max_completion_tokens") if chat else None
    if value is None:
        value = fields.get("max_tokens")
    if value is None:
        return _DEFAULT_MAX_TOKENS[chat]
    if not isinstance(value, int) or value < 1:
        raise ApiError(400, f"max_tokens must be an integer of at least 1, got {value!r}.", "max_tokens")
    return value


def _prompt_tokens(fields: Mapping[str, Any], headers: Mapping[str, str], *, chat: bool) -> int:
    exact = headers.get(PROMPT_TOKENS_HEADER)
    if exact is not None:
        if not exact.isdigit() or int(exact) < 1:
            raise ApiError(400, f"{PROMPT_TOKENS_HEADER} must be a positive integer, got {exact!r}.")
        return int(exact)
    if chat:
        messages = fields.get("messages")
        if not isinstance(messages, list) or not messages:
            raise ApiError(400, "messages must be a list of at least one message.", "messages")
        return _tokens(sum(_text_length(message.get("content")) for message in messages))
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return len(prompt)
    if not isinstance(prompt, str):
        raise ApiError(400, "prompt must be one string or one list of token ids.", "prompt")
    return _tokens(len(prompt))


def _text_length(content: Any) -> int:
    if isinstance(content, list):  # content parts
        return sum(len(part.get("text", "")) for part in content)
    return len(content or "")


def _tokens(characters: int) -> int:
    return max(1, -(-characters // _CHARACTERS_PER_TOKEN))


def error_body(error: ApiError) -> dict[str, Any]:
    """The JSON of a refusal, as vLLM words it."""
    kind = "NotFoundError" if error.status == 404 else "BadRequestError"
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.status}}


class Writer:
    """Writes the answers to one request; what does not change is prepared once."""

    def __init__(self, ask: Ask, number: int, served_name: str, created: int) -> None:
        self._ask = ask
        prefix, name = ("chatcmpl", "chat.completion") if ask.chat else ("cmpl", "text_completion")
        self._head = {
            "id": f"{prefix}-{number:016x}",
            "object": name,
            "created": created,
            "model": served_name,
        }
        chunk = {**self._head, "object": "chat.completion.chunk" if ask.chat else name}
        self._chunk_head = "data: " + json.dumps(chunk, separators=(",", ":"))[:-1] + ","

    def opening(self) -> bytes:
        """What a stream starts with, before the first token: the role, in chat."""
        if not self._ask.chat:
            return b""
        delta = '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]'
        return f"{self._chunk_head}{delta}}}\n\n".encode()

    def chunk(self, tokens: int, total: int, *, finished: bool) -> bytes:
        """`tokens` more tokens as a server-sent event; `total` of them so far."""
        text, reason = WORD * tokens, '"length"' if finished else "null"
        content = f'"delta":{{"content":"{text}"}}' if self._ask.chat else f'"text":"{text}","logprobs":null'
        usage = f',"usage":{json.dumps(self._usage(total))}' if self._ask.continuous_usage else ""
        choice = f'{{"index":0,{content},"finish_reason":{reason}}}'
        return f'{self._chunk_head}"choices":[{choice}]{usage}}}\n\n'.encode()

    def closing(self, total: int) -> bytes:
        """What a stream ends with: the usage if it was asked for, and the end mark."""
        if not self._ask.include_usage:
            return DONE
        return (
            f'{self._chunk_head}"choices":[],"usage":{json.dumps(self._usage(total))}}}\n\n'.encode() + DONE
        )

    def whole(self, total: int) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        text = WORD * total
        said = {"message": {"role": "assistant", "content": text}} if self._ask.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": "length"}
        return {**self._head, "choices": [choice], "usage": self._usage(total)}

    def _usage(self, total: int) -> dict[str, int]:
        prompt = self._ask.prompt_tokens
        return {"prompt_tokens": prompt, "total_tokens": prompt + total, "completion_tokens": total}
