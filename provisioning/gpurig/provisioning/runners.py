"""Runners in GitLab: created with the user's token, verified and deleted with their own."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from gpurig.common.errors import RemoteError
from gpurig.common.gitlab_api import connect, said_by_gitlab, translated
from gpurig.provisioning.role import ENOUGH, Said, look_at_role, scopes_of
from gpurig.provisioning.runner_spec import RunnerSpec

if TYPE_CHECKING:
    import gitlab


class RefusedError(RemoteError):
    """GitLab understood and said no: it did not do what was asked."""


@dataclass(frozen=True)
class Created:
    """A runner that GitLab has just made.

    Attributes:
        expires_at: of the token; None where it never does.
    """

    id: int
    token: str = field(repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True)
class NewToken:
    """A runner's new authentication token.

    Attributes:
        expires_at: None where it never does.
    """

    value: str = field(repr=False)
    expires_at: datetime | None = None


class TokenSource(Protocol):
    """The user's token; who has none until somebody types it is not asked in vain."""

    def get(self) -> str:
        """The token, asking the user where need be; InputError where there is none."""

    def at_hand(self) -> str | None:
        """The token, where it is known without asking."""


@dataclass(frozen=True)
class GivenToken:
    """A token that is known."""

    value: str = field(repr=False)

    def get(self) -> str:
        """The token."""
        return self.value

    def at_hand(self) -> str | None:
        """The token."""
        return self.value


class GitLab(Protocol):
    """What provisioning asks of one GitLab; every method raises RemoteError where it fails."""

    def check_token(self, spec: RunnerSpec) -> None:
        """Fail now, before anything is made, where the user's token cannot create `spec`, as far as GitLab tells."""

    def create(self, spec: RunnerSpec) -> Created:
        """Make a runner; RefusedError where it was certainly not made."""

    def accepts(self, token: str) -> bool:
        """Whether a runner with this token exists."""

    def change(self, runner_id: int, spec: RunnerSpec) -> bool:
        """Make an existing runner what `spec` says; False where no token at hand may, or there is no such runner."""

    def reset_token(self, token: str) -> NewToken | None:
        """Let GitLab exchange a runner's token: the old one is worthless at once; None where it is that already."""

    def delete(self, token: str) -> bool:
        """Remove the runner with this token; False where GitLab knows none."""

    def online(self, runner_id: int) -> bool | None:
        """Whether GitLab has heard of the runner lately; None where no token at hand may ask."""

    def find(self, spec_type: str, description: str) -> tuple[int, ...] | None:
        """The ids of runners of that description; None where no token at hand may list them."""

    def delete_by_id(self, runner_id: int) -> None:
        """Remove a runner with the user's token; nothing where there is none."""


class _Answer(BaseModel):
    """GitLab's answer to `POST /user/runners`."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    id: int
    token: str
    token_expires_at: datetime | None = None


class _NewToken(BaseModel):
    """GitLab's answer to `POST /runners/reset_authentication_token`."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    token: str
    token_expires_at: datetime | None = None


# What GitLab answers to a runner's own token that it does not know (403), or whose owner is gone (422).
_UNKNOWN_TOKEN = frozenset({403, 404, 422})
_MAY_NOT_ASK = frozenset({401, 403, 404})


class HttpGitLab:
    """GitLab over HTTP."""

    def __init__(self, url: str, *, token: TokenSource, ca_file: Path | None = None) -> None:
        """Talk to `url`.

        Args:
            url: GitLab's address.
            token: the user's; a second `up` needs none.
            ca_file: the certificate authority to trust instead of the system's.
        """
        self._url = url
        self._token = token
        self._ca_file = ca_file

    def _as_user(self) -> gitlab.Gitlab:
        return connect(self._url, private_token=self._token.get(), ca_file=self._ca_file)

    def _as_runner(self) -> gitlab.Gitlab:
        return connect(self._url, ca_file=self._ca_file)

    def check_token(self, spec: RunnerSpec) -> None:
        """Fail now, before anything is made, where the user's token cannot create `spec`, as far as GitLab tells."""
        client = self._as_user()
        token = self._said(client, "/personal_access_tokens/self")
        if token.status == 401:
            # In the words that every other call has for it.
            self._unless((), "checking the token", lambda: client.http_get("/version"))
        scopes = scopes_of(token.document)
        if scopes is not None and not ENOUGH & set(scopes):
            raise RemoteError(
                f"the token's scopes ({', '.join(scopes) or 'none'}) do not allow to create a runner",
                hint="make a new one with the scope create_runner: User settings, Access tokens",
            )
        role = look_at_role(functools.partial(self._said, client), spec.runner_type, spec.target, token.document)
        if role.verdict == "too low":
            raise RemoteError(role.message, hint=role.hint)

    def _said(self, client: gitlab.Gitlab, path: str) -> Said:
        """GitLab's answer to a GET, also where it says no."""
        import gitlab  # noqa: PLC0415 - heavy

        with translated("checking the token", self._url):
            try:
                return Said(200, self._document(client.http_get(path)))
            except gitlab.GitlabError as error:
                code = error.response_code
                if code is None or not 400 <= code < 500 or not said_by_gitlab(error):
                    raise
                return Said(code)

    def create(self, spec: RunnerSpec) -> Created:
        """Make a runner; RefusedError where it was certainly not made."""
        client = self._as_user()
        body = {"runner_type": f"{spec.runner_type}_type", **_attributes(spec)}
        if spec.runner_type != "instance":
            body[f"{spec.runner_type}_id"] = self._number(client, spec)
        doing = f"creating the runner for {_whose(spec)}"
        with translated(doing, self._url), _refusals(doing, self._url):
            answer = client.http_post("/user/runners", post_data=body)
        try:
            made = _Answer.model_validate(answer)
        except ValidationError as error:
            raise self._strange() from error
        return Created(id=made.id, token=made.token, expires_at=made.token_expires_at)

    def _number(self, client: gitlab.Gitlab, spec: RunnerSpec) -> int:
        if spec.target.isdigit():
            return int(spec.target)
        doing = f"looking up {_whose(spec)}"
        with translated(doing, self._url), _refusals(doing, self._url, hint=_NUMBER_HINT):
            answer = client.http_get(f"/{spec.runner_type}s/{quote(spec.target, safe='')}")
        number = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(number, int):
            raise RemoteError(f"{doing}: the answer has no number", hint=_NUMBER_HINT)
        return number

    def accepts(self, token: str) -> bool:
        """Whether a runner with this token exists."""
        return self._unless(
            _UNKNOWN_TOKEN,
            "verifying the runner",
            lambda: self._document(self._as_runner().http_post("/runners/verify", post_data={"token": token})),
        )

    def change(self, runner_id: int, spec: RunnerSpec) -> bool:
        """Make an existing runner what `spec` says; False where no token at hand may, or there is no such runner."""
        if self._token.at_hand() is None:
            return False
        client = self._as_user()
        body = {"maximum_timeout": None, "maintenance_note": "", **_attributes(spec)}
        return self._unless(
            _MAY_NOT_ASK,
            f"changing the runner #{runner_id}",
            lambda: self._document(client.http_put(f"/runners/{runner_id}", post_data=body)),
        )

    def reset_token(self, token: str) -> NewToken | None:
        """Let GitLab exchange a runner's token: the old one is worthless at once; None where it is that already."""
        answers: list[dict[str, Any]] = []
        path = "/runners/reset_authentication_token"
        done = self._unless(
            _UNKNOWN_TOKEN,
            "renewing the runner's token",
            lambda: answers.append(self._document(self._as_runner().http_post(path, post_data={"token": token}))),
        )
        if not done:
            return None
        try:
            made = _NewToken.model_validate(answers[0])
        except ValidationError as error:
            raise self._strange() from error
        return NewToken(made.token, made.token_expires_at)

    def delete(self, token: str) -> bool:
        """Remove the runner with this token; False where GitLab knows none."""
        # In the body: a query would put the token into the server's access log.
        return self._unless(
            _UNKNOWN_TOKEN,
            "deleting the runner",
            lambda: self._emptied(self._as_runner().http_request("delete", "/runners", post_data={"token": token})),
        )

    def online(self, runner_id: int) -> bool | None:
        """Whether GitLab has heard of the runner lately; None where no token at hand may ask."""
        answers: list[Any] = []
        if self._token.at_hand() is None:
            return None
        client = self._as_user()
        known = self._unless(
            _MAY_NOT_ASK,
            "asking for the runner",
            lambda: answers.append(self._document(client.http_get(f"/runners/{runner_id}"))),
        )
        if not known:
            return None
        return answers[0].get("status") == "online" or answers[0].get("online") is True

    def find(self, spec_type: str, description: str) -> tuple[int, ...] | None:
        """The ids of runners of that description; None where no token at hand may list them."""
        answers: list[Any] = []
        path = "/runners/all" if spec_type == "instance" else "/runners"
        if self._token.at_hand() is None:
            return None
        client = self._as_user()
        known = self._unless(
            _MAY_NOT_ASK,
            "listing runners",
            lambda: answers.extend(client.http_list(path, query_data={"type": f"{spec_type}_type"}, get_all=True)),
        )
        if not known:
            return None
        return tuple(
            int(one["id"]) for one in answers if isinstance(one, dict) and one.get("description") == description
        )

    def delete_by_id(self, runner_id: int) -> None:
        """Remove a runner with the user's token; nothing where there is none."""
        self._unless(
            {404},
            "deleting the runner",
            lambda: self._emptied(self._as_user().http_delete(f"/runners/{runner_id}")),
        )

    def _document(self, answer: Any) -> dict[str, Any]:
        """A JSON object; python-gitlab hands a login page through as the response it is."""
        if not isinstance(answer, dict):
            raise self._strange()
        return answer

    def _emptied(self, answer: Any) -> None:
        """The answer to a deletion: 204, or what was deleted."""
        if answer.status_code != 204 and "json" not in answer.headers.get("Content-Type", ""):
            raise self._strange()

    def _strange(self) -> RemoteError:
        return RemoteError(
            f"{self._url} answered with something that is not GitLab's API",
            hint="check that the URL is a GitLab, not a proxy or a login page",
        )

    def _unless(self, codes: Collection[int], doing: str, call: Callable[[], object]) -> bool:
        """Whether `call` went well; False where GitLab answered with one of `codes`."""
        import gitlab  # noqa: PLC0415 - heavy

        with translated(doing, self._url):
            try:
                call()
            except gitlab.GitlabError as error:
                if error.response_code in codes and said_by_gitlab(error):
                    return False
                raise
        return True


def _attributes(spec: RunnerSpec) -> dict[str, Any]:
    """What `POST /user/runners` and `PUT /runners/:id` call the spec's fields."""
    body: dict[str, Any] = {
        "description": spec.description,
        "tag_list": list(spec.tags),
        "run_untagged": spec.run_untagged,
        "locked": spec.locked,
        "paused": spec.paused,
        "access_level": "ref_protected" if spec.protected else "not_protected",
    }
    if spec.maximum_timeout is not None:
        body["maximum_timeout"] = spec.maximum_timeout
    if spec.maintenance_note:
        body["maintenance_note"] = spec.maintenance_note
    return body


def _whose(spec: RunnerSpec) -> str:
    return f"{spec.runner_type} {spec.target}" if spec.target else "the whole instance"


_NUMBER_HINT = "pass its number (the project's or group's main page shows it): a narrow token may not look up paths"


@contextlib.contextmanager
def _refusals(doing: str, url: str, *, hint: str = "") -> Iterator[None]:
    """A RemoteError that is a refusal becomes a RefusedError, so that the caller knows that nothing was made."""
    import gitlab  # noqa: PLC0415

    try:
        yield
    except gitlab.GitlabError as error:
        code = error.response_code
        if code is None or not 400 <= code < 500:
            raise
        try:
            with translated(doing, url):
                raise
        except RemoteError as plain:
            raise RefusedError(plain.message, hint=hint or plain.hint) from error
