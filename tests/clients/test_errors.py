"""What the API server's refusals mean, by status and by text."""

import pytest

from stoker.clients.errors import (
    MAX_MESSAGE,
    AlreadyExists,
    Call,
    Cause,
    ClientError,
    Conflict,
    Expired,
    Forbidden,
    NotFound,
    Rejected,
    Replaced,
    Transient,
    classify,
)

CREATE = Call("create", "pods", "ml", "llama-0")


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", Rejected),
        (401, "Unauthorized", Forbidden),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (405, "MethodNotAllowed", Rejected),
        (408, "", Transient),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (409, "", Conflict),
        (410, "Expired", Expired),
        (413, "RequestEntityTooLarge", Rejected),
        (415, "UnsupportedMediaType", Rejected),
        (422, "Invalid", Rejected),
        (429, "TooManyRequests", Transient),
        (500, "InternalError", Transient),
        (503, "ServiceUnavailable", Transient),
        (504, "Timeout", Transient),
        (302, "", Rejected),
    ],
)
def test_the_status_and_reason_decide_the_class(status, reason, kind):
    error = classify(status, {"message": "words", "reason": reason})
    assert type(error) is kind
    assert (error.status, error.reason) == (status, reason)
    assert error.detail.startswith("words")


def test_a_message_says_what_was_asked():
    error = classify(404, {"message": 'namespaces "ml" not found'}, call=CREATE)
    assert str(error) == 'cannot create pods llama-0 in namespace ml: namespaces "ml" not found'


def test_a_rejection_names_its_fields():
    causes = [
        {"reason": "FieldValueInvalid", "message": "must be positive", "field": "spec.replicas"},
        "junk",
    ]
    error = classify(422, {"message": "invalid", "reason": "Invalid", "details": {"causes": causes}})
    assert error.causes == (Cause("spec.replicas", "FieldValueInvalid", "must be positive"),)


@pytest.mark.parametrize(("raw", "field"), [(".status.x", "status.x"), ("<nil>", ""), (None, "")])
def test_fields_are_written_as_in_a_manifest(raw, field):
    (cause,) = classify(422, {"details": {"causes": [{"field": raw}]}}).causes
    assert cause.field == field


@pytest.mark.parametrize("details", [None, "x", [], {"causes": None}, {"causes": {}}])
def test_odd_details_are_no_reason_to_fail(details):
    assert classify(422, {"message": "invalid", "details": details}).causes == ()


@pytest.mark.parametrize(
    ("header", "details", "seconds"),
    [
        ("3", {}, 3.0),
        (None, {"retryAfterSeconds": 7}, 7.0),
        ("1", {"retryAfterSeconds": 7}, 1.0),
        (None, {}, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", {}, None),
        ("-1", {}, None),
        ("inf", {}, None),
        ("nan", {}, None),
    ],
)
def test_retry_after_comes_from_the_header_then_from_the_details(header, details, seconds):
    error = classify(429, {"message": "slow down", "details": details}, retry_after=header)
    assert isinstance(error, Transient)
    assert error.retry_after == seconds


def test_a_missing_role_is_named_with_the_verb_to_allow():
    message = 'pods is forbidden: User "system:serviceaccount:stoker:stoker" cannot patch resource "pods"'
    error = classify(403, {"message": message, "reason": "Forbidden"}, call=Call("merge", "pods", "ml", "a"))
    assert "allow the verb 'patch' on 'pods'" in str(error)
    assert "namespace ml" in str(error)


def test_bad_credentials_say_so():
    assert "token or kubeconfig" in str(classify(401, {"message": "Unauthorized"}))


def test_a_quota_is_told_from_a_missing_role():
    message = 'pods "a" is forbidden: exceeded quota: gpus, requested: nvidia.com/gpu=8, used: 8, limited: 8'
    error = classify(403, {"message": message}, call=CREATE)
    assert isinstance(error, Forbidden)
    assert error.quota_exceeded
    assert "role" not in str(error)
    assert not classify(403, {"message": "cannot create"}).quota_exceeded


def test_a_terminating_namespace_is_told_apart():
    cause = {"reason": "NamespaceTerminating", "message": "namespace ml is being terminated"}
    error = classify(403, {"message": "forbidden", "details": {"causes": [cause]}})
    assert isinstance(error, Forbidden)
    assert error.namespace_terminating


UID_FIELD = {"causes": [{"reason": "FieldValueInvalid", "field": "metadata.uid", "message": "immutable"}]}


@pytest.mark.parametrize(
    ("status", "message", "details", "kind"),
    [
        (409, "Precondition failed: UID in precondition: a, UID in object meta: b", {}, Replaced),
        (409, 'Pod "a": the UID in the precondition (a) does not match the UID in record (b)', {}, Replaced),
        (409, "uid mismatch: the provided object specified uid a, and no object was found", {}, Replaced),
        (409, "the object has been modified; please apply your changes to the latest version", {}, Conflict),
        (422, "invalid", UID_FIELD, Replaced),
        (422, "invalid", {"causes": [{"field": "spec.uid", "message": "immutable"}]}, Rejected),
    ],
)
def test_a_uid_that_is_gone_is_told_from_other_refusals(status, message, details, kind):
    assert type(classify(status, {"message": message, "details": details})) is kind


def test_text_that_is_no_status_is_kept_and_bounded():
    error = classify(502, "<html>" + "x" * 5000)
    assert isinstance(error, Transient)
    assert error.detail.startswith("<html>")
    assert len(error.detail) == MAX_MESSAGE
    assert "HTTP 500 without a message" in str(classify(500, ""))


def test_all_are_client_errors():
    for status in (400, 403, 404, 409, 410, 429, 500):
        assert isinstance(classify(status, ""), ClientError)
