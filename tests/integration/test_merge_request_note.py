"""The merge request's note, against a GitLab that answers over HTTP."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import pytest
from gpurig.common.errors import GateFailedError, PrerequisiteError, RemoteError
from gpurig.evaljobs.commands.report import NoteOptions, conclude
from gpurig.evaljobs.results import Gate, Results
from standins.evalrun import hostile_samples, results
from standins.gitlab import GitLab, MergeRequest

PASSED = Gate(passed=True)
NOTES = r"/api/v4/projects/\d+/merge_requests/\d+/notes(/\d+)?"


class Case:
    """A merge request and the environment of its pipeline's job."""

    def __init__(self, server: GitLab, patch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.project = server.add_project("team/app")
        self.merge_request: MergeRequest = server.add_merge_request(self.project)
        self.token = server.add_token("api", user=self._member("bot"))
        patch.setenv("CI_SERVER_URL", server.url)
        patch.setenv("CI_PROJECT_ID", str(self.project.id))
        patch.setenv("CI_MERGE_REQUEST_IID", str(self.merge_request.iid))
        patch.delenv("CI_SERVER_TLS_CA_FILE", raising=False)
        patch.setenv("GPURIG_NOTE_TOKEN", self.token)
        self.patch = patch

    def _member(self, name: str):
        user = self.server.add_user(name)
        self.server.add_member(self.project, user)
        return user

    @property
    def notes(self) -> list[str]:
        return [note.body for note in self.merge_request.notes]

    def other_writes(self, body: str) -> None:
        """A note by somebody else."""
        import gitlab

        token = self.server.add_token("api", user=self._member("somebody"))
        client = gitlab.Gitlab(self.server.url, private_token=token)
        place = client.projects.get(self.project.id).mergerequests.get(self.merge_request.iid, lazy=True)
        place.notes.create({"body": body})


@pytest.fixture
def case(gitlab: GitLab, monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(gitlab, monkeypatch)


def end(run: Results, **options: object) -> None:
    conclude(run, Path("report"), NoteOptions(**options))


def test_first_run_creates_the_note_and_the_next_updates_it_in_place(case, capsys):
    end(results(gate=PASSED))
    (first,) = case.notes
    end(results(gate=PASSED, description="changed", samples=results().samples[:2]))
    (second,) = case.notes
    assert first != second
    assert "2 of 2 samples passed" in second
    assert capsys.readouterr().out.count("Note on merge request !1: ") == 2


def test_the_same_result_writes_nothing(case, capsys):
    end(results(gate=PASSED))
    end(results(gate=PASSED))
    writes = [exchange for exchange in case.server.requests if exchange.request.method in {"POST", "PUT"}]
    assert len(writes) == 1
    assert "unchanged" in capsys.readouterr().out


def test_each_suite_has_a_note_of_its_own(case):
    end(results(gate=PASSED))
    end(results(gate=PASSED, suite="ci-jobs-2"))
    end(results(gate=PASSED, samples=results().samples[:2]))
    assert [note.split("\n")[0] for note in case.notes] == ["<!-- gpurig:ci-jobs -->", "<!-- gpurig:ci-jobs-2 -->"]


def test_the_note_is_found_behind_hundreds_of_others(case):
    end(results(gate=PASSED))
    (ours,) = case.merge_request.notes
    earlier = ours.created_at - dt.timedelta(hours=1)
    case.merge_request.notes += [
        dataclasses.replace(ours, id=10_000 + number, body=f"talk {number}", created_at=earlier)
        for number in range(250)
    ]
    end(results(gate=PASSED, samples=results().samples[:2]))
    assert len(case.notes) == 251


def test_a_note_of_somebody_else_that_looks_like_ours_is_left_alone(case):
    case.other_writes("<!-- gpurig:ci-jobs -->\nEverything is fine!")
    end(results(gate=PASSED))
    end(results(gate=PASSED, samples=results().samples[:2]))
    assert len(case.notes) == 2
    assert case.notes[0].endswith("Everything is fine!")
    assert "2 of 2 samples passed" in case.notes[1]


def test_without_a_token_the_run_goes_on_and_one_line_says_why_there_is_no_note(case, capsys):
    case.patch.delenv("GPURIG_NOTE_TOKEN")
    end(results(gate=PASSED))
    assert case.notes == []
    assert "needs a token" in capsys.readouterr().err
    with pytest.raises(PrerequisiteError):
        end(results(gate=PASSED), mode="always")


def test_outside_of_a_merge_request_nothing_is_said_unless_it_must_be(case, capsys):
    case.patch.delenv("CI_MERGE_REQUEST_IID")
    end(results(gate=PASSED))
    assert capsys.readouterr().err == ""
    with pytest.raises(PrerequisiteError, match="merge request"):
        end(results(gate=PASSED), mode="always")
    assert case.server.requests == []


def test_never_asks_nobody(case):
    end(results(gate=PASSED), mode="never")
    assert case.server.requests == []


def test_the_token_may_come_from_a_file(case, tmp_path):
    case.patch.delenv("GPURIG_NOTE_TOKEN")
    (tmp_path / "token").write_text(f"{case.token}\n")
    end(results(gate=PASSED), token_file=tmp_path / "token")
    assert len(case.notes) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429, 500, 502, 503])
def test_a_refusal_is_a_warning_unless_the_note_is_demanded(case, capsys, status):
    case.server.fail("status", status=status)
    end(results(gate=PASSED))
    assert str(status) in capsys.readouterr().err
    with pytest.raises(RemoteError):
        end(results(gate=PASSED), mode="always")


@pytest.mark.parametrize("kind", ["garbage", "not-http", "cut", "reset"])
def test_a_broken_answer_is_a_warning_unless_the_note_is_demanded(case, capsys, kind):
    case.server.fail(kind)
    end(results(gate=PASSED))
    assert "warning" in capsys.readouterr().err
    with pytest.raises(RemoteError):
        end(results(gate=PASSED), mode="always")


def test_the_gate_decides_the_exit_code_also_when_the_note_fails(case, capsys):
    case.server.fail("status", status=500)
    with pytest.raises(GateFailedError):
        end(results(), mode="always")
    assert "500" in capsys.readouterr().err


def test_the_token_is_shown_nowhere(case, capsys):
    case.server.fail("status", status=401, times=1)
    end(results(gate=PASSED))
    end(results(gate=PASSED))
    shown = capsys.readouterr()
    assert case.token not in shown.out + shown.err + "".join(case.notes)


def test_hostile_answers_reach_gitlab_as_they_were_written_to_the_file(case):
    from gpurig.evaljobs.report import note_markdown

    run = results(hostile_samples(), gate=PASSED)
    end(run)
    assert case.notes[0].strip() == note_markdown(run).strip()


def test_a_token_that_may_not_write_is_told_which_token_would(case, capsys):
    case.patch.setenv("GPURIG_NOTE_TOKEN", "glpat-wrong")
    end(results(gate=PASSED))
    assert "GPURIG_NOTE_TOKEN must be a valid token" in capsys.readouterr().err


def test_a_server_of_an_unknown_authority_is_refused_and_one_of_a_named_authority_is_not(
    tls_gitlab, monkeypatch, capsys
):
    case = Case(tls_gitlab, monkeypatch)
    end(results(gate=PASSED))
    assert "CI_SERVER_TLS_CA_FILE" in capsys.readouterr().err
    monkeypatch.setenv("CI_SERVER_TLS_CA_FILE", str(tls_gitlab.ca_file))
    end(results(gate=PASSED))
    assert len(case.notes) == 1


def test_a_ca_file_that_is_not_there_is_a_warning_that_names_it(case, capsys):
    case.patch.setenv("CI_SERVER_TLS_CA_FILE", "/nowhere/ca.pem")
    end(results(gate=PASSED))
    assert "/nowhere/ca.pem" in capsys.readouterr().err
