"""The problems of a configuration that a model refuses."""

import pydantic

from hydra_exca.sweep import schema


class Login(pydantic.BaseModel):
    user: int
    api_key: int


def test_a_problem_shows_what_was_given_unless_that_is_named_like_a_secret() -> None:
    problems = schema.model_problems(Login, {"user": "marie", "api_key": "abc123"})
    text = "\n".join(map(str, problems))
    assert "(given: 'marie')" in text and "api_key" in text and "abc123" not in text
