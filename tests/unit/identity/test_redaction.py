"""Values of keys that are named like secrets: a digest stands in names and records."""

from __future__ import annotations

import collections
import json
import typing as tp

import pydantic
import pytest

from hydra_exca.identity import uid
from hydra_exca.identity.redaction import Redaction

SECRET = "hunter2hunter2"


class Database(pydantic.BaseModel):
    user: str = "me"
    password: str = "none"
    port: int = 1


class Task(pydantic.BaseModel):
    api_key: str = ""
    max_tokens: int = 7
    db: Database = Database()
    more: tp.Any = None


def stored(identity: uid.Identity) -> str:
    return f"{identity.uid()} {json.dumps(identity.to_json())} {identity.stored_bytes().decode()}"


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        *[
            (key, True)
            for key in ("password", "api_key", "hf_token", "client_secret", "db.password", "token.0", "a[0].token")
        ],
        *[(key, True) for key in ("API_KEY", "hfToken", "openai-api-key", "OPENAI_API_KEY", "aws.secret_access_key")],
        *[
            (key, False)
            for key in ("max_tokens", "tokenizer", "tokens", "password_length", "key", "secretary", "n_token_s")
        ],
    ],
)
def test_a_key_is_secret_by_its_name(key: str, secret: bool) -> None:
    assert Redaction().is_secret(key) is secret


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": SECRET},
        {"db": {"password": SECRET}},
        {"tokens": 5, "token": [SECRET, "b"]},
        {"password": SECRET, "url": f"https://me:{SECRET}@host"},
        {"more": uid.canonical(collections.OrderedDict(password=SECRET))},
        {"more": uid.canonical({1: {"api_key": SECRET}})},
        {"token": uid.canonical(SECRET.encode())},
        {"password": SECRET, "more": uid.canonical({SECRET, "other"})},
    ],
)
def test_a_secret_is_in_no_name_and_no_record_and_its_digest_counts(fields: dict[str, tp.Any]) -> None:
    identity = uid.make_identity("f", "1", fields)
    other = uid.make_identity(
        "f", "1", json.loads(json.dumps(fields).replace(SECRET, "anotherone").replace(SECRET.encode().hex(), "00"))
    )
    assert SECRET not in stored(identity) and SECRET.encode().hex() not in stored(identity)
    assert identity.digest == uid.digest(fields) != other.digest
    assert identity.same_as(identity.to_json()) and identity.same_as({**identity.to_json(), "fields": fields})
    assert not other.same_as(identity.to_json()) and not identity.same_as(other.to_json())


@pytest.mark.parametrize("value", [8675309, 0.125, SECRET])
def test_numbers_are_secrets_too(value: tp.Any) -> None:
    assert str(value) not in stored(uid.make_identity("f", "1", {"password": value}, label=None)).replace(
        uid.digest(value), ""
    )


@pytest.mark.parametrize("value", [None, True, ""])
def test_what_hides_nothing_is_shown(value: tp.Any) -> None:
    assert uid.make_identity("f", "1", {"token": value}).to_json()["fields"] == {"token": value}


def test_a_result_is_found_under_other_patterns_and_one_that_was_stored_before() -> None:
    fields = {"api_key": SECRET, "pin": "1234", "seed": 3}
    ways = [
        uid.make_identity("f", "1", fields, redaction=Redaction(keys)) for keys in ((), ("pin",), ("api_key", "pin"))
    ]
    assert len({json.dumps(way.to_json()) for way in ways}) == len({way.digest for way in ways}) + 2 == 3
    assert all(one.same_as(other.to_json()) for one in ways for other in ways)


def test_a_model_shows_no_secret_and_its_defaults_are_compared() -> None:
    task = Task(api_key=SECRET, db=Database(password="swordfish"), more={"seen": f"Bearer {SECRET}"})
    identity = uid.model_identity("f", "1", task)
    assert SECRET not in stored(identity) and "swordfish" not in stored(identity)
    assert identity.uid().startswith("api_key=secret_") and "max_tokens" in json.dumps(identity.to_json()["full"])
    assert uid.changed_defaults(identity.to_json(), identity) == []


def test_a_changed_default_of_a_secret_is_told_without_it() -> None:
    def identity(default: str) -> uid.Identity:
        model = pydantic.create_model("Model", password=(str, default), x=(int, 0))
        return uid.model_identity("f", "1", model(x=1))

    [message] = uid.changed_defaults(identity(SECRET).to_json(), identity("swordfish"))
    assert message.startswith("password: stored") and SECRET not in message and "swordfish" not in message
    assert uid.changed_defaults(identity(SECRET).to_json(), identity(SECRET)) == []


def test_what_pydantic_holds_as_a_secret_stays_as_it_was() -> None:
    form = uid.canonical(pydantic.SecretStr(SECRET))
    assert uid.make_identity("f", "1", {"password": form}).to_json()["fields"] == {"password": form}
    assert uid.make_identity("f", "1", {"password": SECRET}).to_json()["fields"] == {"password": form}


@pytest.mark.parametrize(
    "form", [uid.canonical(pydantic.SecretStr(SECRET)), uid.canonical(uid.Pinned("${oc.env:X}", 3))]
)
def test_what_is_hidden_already_is_not_hidden_again_beside_a_secret(form: tp.Any) -> None:
    identity = uid.make_identity("f", "1", {"token": form, "password": SECRET})
    assert identity.to_json()["fields"]["token"] == form  # type: ignore[index,call-overload]
    assert identity.same_as(identity.to_json()) and uid.changed_defaults(identity.to_json(), identity) == []


def test_an_interpolation_with_a_default_shows_no_secret() -> None:
    identity = uid.make_identity("f", "1", {"token": uid.canonical(uid.Pinned(f"${{oc.env:X,{SECRET}}}", 3))})
    assert SECRET not in stored(identity) and identity.same_as(identity.to_json())


@pytest.mark.parametrize(
    "arguments",
    [
        [f"+api_key={SECRET}"],
        [f"db.password='{SECRET}'"],
        [f"+db={{user:me,password:{SECRET}}}"],
        [f"api_key={SECRET},another"],
        ["--api-key", SECRET],
        [f"--token={SECRET}"],
        [f"hydra.launcher.setup=[export HF_TOKEN={SECRET}]"],
        [f"api_key={SECRET}", f"url=https://{SECRET}@host"],
    ],
)
def test_a_command_line_shows_no_secret(arguments: list[str]) -> None:
    shown = Redaction().including_arguments(arguments).redact_arguments(["train.py", "seed=1", *arguments])
    assert shown[:2] == ["train.py", "seed=1"] and SECRET not in " ".join(shown) and "secret_" in " ".join(shown)


def test_a_command_line_without_secrets_is_shown_as_it_is() -> None:
    arguments = [
        "t.py",
        "max_tokens=3",
        "+a={b:1,c:'x y'}",
        "--seed",
        "3",
        "token=null",
        "api_key=${oc.env:KEY}",
        "~password",
    ]
    assert Redaction().redact_arguments(arguments) == arguments


def test_no_patterns_hide_nothing() -> None:
    assert uid.make_identity("f", "1", {"password": SECRET}, redaction=Redaction(())).to_json()["fields"] == {
        "password": SECRET
    }
