from __future__ import annotations

import time

import pytest
from gpurig.evaljobs.checks import Answer, parse_check, run_check
from gpurig.evaljobs.checks.gitlab.secrets import is_secret_name, secrets_in_text
from gpurig.evaljobs.checks.gitlab.semantics import ASPECTS
from gpurig.evaljobs.records import CheckOutcome
from hypothesis import given
from hypothesis import strategies as st

ALL = {"gitlab-ci-semantics": {"aspects": list(ASPECTS)}}
# Written in two parts, so that no scanner of this repository takes them for real ones.
GITLAB_TOKEN, GITHUB_TOKEN, AWS_KEY = "glp" + "at-" + "x1" * 10, "gh" + "p_" + "a1" * 18, "AKI" + "A" + "J7" * 8
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----"

TWICE = "{job: t, parallel: {matrix: [{V: a}]}}, {job: t, parallel: {matrix: [{V: b}]}}"

GOOD = [
    "job:\n  script: [make]\n",
    "stages: [lint]\njob:\n  stage: lint\n  script: make\n",
    "prepare:\n  stage: .pre\n  script: a\njob:\n  script: b\nend:\n  stage: .post\n  script: c\n",
    "a:\n  stage: build\n  script: x\nb:\n  stage: deploy\n  needs: [a]\n  script: y\n",
    "a:\n  script: x\nb:\n  needs: [a]\n  script: y\n",
    "a:\n  script: x\nb:\n  needs: [{job: a, artifacts: false}, {job: gone, optional: true}]\n  script: y\n",
    "b:\n  needs: [{project: g/p, job: x, ref: main, artifacts: true}, {pipeline: $P, job: y}]\n  script: y\n",
    "b:\n  needs: []\n  stage: deploy\n  script: y\n",
    "a:\n  stage: build\n  script: x\n  artifacts: {paths: [o]}\nb:\n  dependencies: [a]\n  script: y\n",
    "a:\n  stage: build\n  script: x\nb:\n  needs: [a]\n  dependencies: [a]\n  script: y\n",
    "b:\n  dependencies: []\n  script: y\n",
    ".base:\n  stage: build\n  script: x\njob:\n  extends: .base\n",
    ".a:\n  script: x\n.b:\n  extends: .a\n  tags: [t]\njob:\n  extends: [.b]\n",
    ".s:\n  script:\n    - a\njob:\n  script:\n    - !reference [.s, script]\n    - b\n",
    ".r:\n  rules:\n    - if: $CI_COMMIT_TAG\njob:\n  script: x\n  rules:\n    - !reference [.r, rules]\n",
    ".v:\n  variables: {A: x}\njob:\n  script: x\n  variables: !reference [.v, variables]\n",
    "job:\n  script: x\n  rules:\n    - if: $CI_COMMIT_BRANCH == 'main' && $A =~ /^ab/\n      when: manual\n",
    "workflow:\n  rules:\n    - if: $CI_MERGE_REQUEST_IID\n    - when: never\njob:\n  script: x\n",
    "job:\n  script: x\n  when: delayed\n  start_in: 5 minutes\n",
    "job:\n  script: x\n  only:\n    variables: [$A == 'x']\n",
    "job:\n  script: x\n  parallel: 5\n",
    "job:\n  script: x\n  parallel:\n    matrix:\n      - V: ['1', '2']\n        W: [a, b]\n      - V: '3'\n",
    "job:\n  script: x\n  parallel: 3\nend:\n  needs: ['job 1/3']\n  script: y\n",
    "t:\n  script: x\n  parallel: {matrix: [{V: [a, b]}]}\nend:\n  needs: ['t: [a]']\n  script: y\n",
    "t:\n  script: x\n  parallel: {matrix: [{V: [a, b]}]}\nend:\n  script: y\n  needs: [" + TWICE + "]\n",
    "job:\n  trigger: group/project\n",
    "job:\n  trigger: {include: child.yml}\n",
    "include: other.yml\njob:\n  extends: .elsewhere\n  stage: theirs\n  needs: [theirs]\n",
    "variables:\n  POSTGRES_PASSWORD: postgres\n  TOKEN: $CI_JOB_TOKEN\n  TOKEN_FILE: /run/x\njob:\n  script: x\n",
    "job:\n  script:\n    - docker login -u $CI_REGISTRY_USER -p $CI_REGISTRY_PASSWORD $CI_REGISTRY\n",
    "job:\n  script: x\n  services:\n    - name: postgres:16\n      variables: {POSTGRES_PASSWORD: test}\n",
    "default:\n  before_script: [a]\njob:\n  inherit: {default: false}\n  script: x\n",
    ".a: &a\n  script: x\njob:\n  <<: *a\n  stage: build\n",
    "pages:\n  script: x\n  artifacts: {paths: [public]}\n",
]


def finding(output: str, check: object = "gitlab-ci-semantics", **facts: object) -> CheckOutcome:
    outcome = run_check(parse_check(check), Answer(output, **facts))
    assert outcome.passed == (not outcome.message)
    assert "\n" not in outcome.message
    return outcome


@pytest.mark.parametrize("text", GOOD)
def test_a_sound_configuration_passes(text: str) -> None:
    assert finding(text).message == ""
    assert finding(f"```yaml\n{text}```").score == 1.0
    # The schema agrees that these are configurations at all.
    assert run_check(parse_check("gitlab-ci"), Answer(text)).message == ""


BAD = [
    ("stages: [build]\n", "no job that runs"),
    (".a:\n  script: x\n", "a job whose name begins with a dot is a template"),
    ("job:\n  stage: build\n", '"job": has neither script nor run nor trigger'),
    ("job:\n  script: x\n  trigger: a/b\n", "has script and trigger, of which a job takes one"),
    ("job:\n  stage: lint\n  script: x\n", 'stage "lint" does not exist (there are .pre, build, test, deploy, .post)'),
    ("stages: [build]\njob:\n  script: x\n", 'stage "test" does not exist'),
    ("job:\n  stage: .pre\n  script: x\n", "all jobs are in .pre and .post"),
    ("a:\n  needs: [b]\n  script: x\n", '"a": needs "b", which does not exist'),
    (".b:\n  script: y\na:\n  needs: [.b]\n  script: x\n", "is a template and never runs"),
    ("a:\n  needs: [b]\n  script: x\nb:\n  needs: [a]\n  script: y\n", 'a circle: "a" → "b" → "a"'),
    ("a:\n  needs: [a]\n  script: x\n", 'a circle: "a" → "a"'),
    ("a:\n  stage: build\n  needs: [b]\n  script: x\nb:\n  script: y\n", 'stage "test" is behind "build"'),
    ("a:\n  script: x\nb:\n  needs: [a, a]\n  script: y\n", 'needs "a" twice'),
    ("a:\n  script: x\n  rules:\n    - if: $A\n      needs: [b]\n", 'needs "b", which does not exist'),
    ("a:\n  script: x\nb:\n  needs: [" + ", ".join(["a"] * 51) + "]\n  script: y\n", "needs 51 jobs; GitLab takes 50"),
    ("a:\n  dependencies: [b]\n  script: x\n", 'depends on "b", which does not exist'),
    ("a:\n  dependencies: [b]\n  script: x\nb:\n  script: y\n", "which is not in an earlier stage"),
    (
        "a:\n  stage: build\n  script: x\nb:\n  needs: []\n  dependencies: [a]\n  script: y\n",
        "is not among its needs",
    ),
    ("a:\n  extends: .b\n  script: x\n", 'extends ".b", which does not exist'),
    (".a:\n  extends: .b\n.b:\n  extends: .a\njob:\n  extends: .a\n  script: x\n", "extends goes in a circle"),
    (
        "".join(f".j{n}:\n  extends: .j{n + 1}\n" for n in range(12)) + ".j12:\n  script: x\njob:\n  extends: .j0\n",
        "extends is deeper than 11 levels",
    ),
    ("job:\n  script:\n    - !reference [.gone, script]\n", '"!reference [.gone, script]" names nothing'),
    (".a:\n  script: !reference [.a, script]\njob:\n  extends: .a\n", "is nested deeper than 10 levels"),
    ("job:\n  script: x\n  rules:\n    - if: ${A} == 'x'\n", "a variable is written $NAME here, without braces"),
    ("job:\n  script: x\n  rules:\n    - if: github.ref == 'x'\n", "rule 1: \"github.ref == 'x'\" is no expression"),
    ("job:\n  script: x\n  rules:\n    - when: sometimes\n", 'when: "sometimes" is none of on_success'),
    ("job:\n  script: x\n  rules:\n    - when: delayed\n", "does not say start_in"),
    ("job:\n  script: x\n  when: delayed\n", "does not say start_in"),
    ("job:\n  script: x\n  rules: [{if: $A}]\n  only: [main]\n", "has rules and only"),
    ("workflow:\n  rules:\n    - if: $A\n      when: manual\njob:\n  script: x\n", "workflow: rule 1: when: "),
    ("job:\n  script: x\n  except:\n    variables: [A]\n", "except:variables"),
    ("job:\n  script: x\n  rules:\n    - if: 1\n", "if must be a text"),
    (
        f"job:\n  script: [curl -H 'PRIVATE-TOKEN: {GITLAB_TOKEN}' x]\n",
        "a GitLab token (glpat-x1…)",
    ),
    (f"variables:\n  X: {GITHUB_TOKEN}\njob:\n  script: x\n", "a GitHub token"),
    (f"job:\n  script: x\n  variables: {{AWS_ACCESS_KEY_ID: {AWS_KEY}}}\n", "an AWS access key"),
    (f"job:\n  script:\n    - |\n      echo '{KEY}'\n", "a private key"),
    ("job:\n  script: [git clone https://me:hunter2@example.com/x]\n", "a password in an address"),
    ("variables:\n  DB_PASSWORD: hunter2\njob:\n  script: x\n", 'the variable "DB_PASSWORD" holds a literal value'),
    ("job:\n  script: x\n  services:\n    - {name: db, variables: {DB_PASSWORD: hunter2}}\n", "DB_PASSWORD"),
    ("job:\n  script: x\n  parallel: 500\n", "parallel comes to 500 jobs; GitLab takes 1 to 200"),
    ("job:\n  script: x\n  parallel: {matrix: []}\n", "parallel must be a number, or a matrix"),
    ("job:\n  script: x\n  parallel: {matrix: [{A: []}]}\n", "parallel comes to 0 jobs"),
    (f"job:\n  script: x\n  parallel: {{matrix: [{{A: [{', '.join(map(str, range(201)))}]}}]}}\n", "comes to 201 jobs"),
    ("- a\n", "must be a mapping of jobs"),
    ("just words", "plain text"),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_an_unsound_configuration_fails_and_says_which_job_and_why(text: str, says: str) -> None:
    outcome = finding(text)
    assert says in outcome.message
    assert outcome.score is not None
    assert outcome.score < 1


def test_the_score_is_the_share_of_sound_aspects() -> None:
    outcome = finding(
        "job:\n  stage: lint\n  needs: [gone]\n  script: x\n",
        {"gitlab-ci-semantics": {"aspects": ["stages", "needs", "rules", "matrix"]}},
    )
    assert outcome.score == pytest.approx(0.5)
    assert "[stages]; " in outcome.message
    assert outcome.message.endswith("[needs]")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image: python:3.12\njob:\n  script: x\n", ""),
        ("default: {image: {name: registry.example.com:5000/a/b@sha256:" + "a" * 64 + "}}\njob:\n  script: x\n", ""),
        ("job:\n  image: $IMAGE\n  script: x\nchild:\n  trigger: a/b\n", ""),
        ("job:\n  script: x\n", "no image is named"),
        ("image: a\njob:\n  inherit: {default: [tags]}\n  script: x\n", "no image is named"),
        ("job:\n  image: 'Python 3.12'\n  script: x\n", '"Python 3.12" is no image'),
    ],
)
def test_images_are_looked_at_where_that_is_wanted(text: str, says: str) -> None:
    message = finding(text, {"gitlab-ci-semantics": {"aspects": "images"}}).message
    assert says in message
    assert bool(says) == bool(message)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("DB_PASSWORD", True),
        ("password", True),
        ("API_KEY", True),
        ("APIKEY", True),
        ("DEPLOY_TOKEN", True),
        ("TOKEN_FILE", False),
        ("SECRET_NAME", False),
        ("PASSENGER_COUNT", False),
        ("BYPASS", False),
        ("TOKENIZER", False),
    ],
)
def test_a_variable_s_name_tells_whether_it_holds_a_secret(name: str, secret: bool) -> None:
    assert is_secret_name(name) == secret


def test_what_looks_like_a_secret_is_never_repeated_in_whole() -> None:
    for secret in (GITLAB_TOKEN, GITHUB_TOKEN, AWS_KEY):
        (found,) = secrets_in_text(f"x {secret} y")
        assert secret not in found
        assert secret not in finding(f"my token is {secret}", "no-secrets").message
    assert finding("there is $TOKEN and ${{ secrets.TOKEN }} and a sk-short", "no-secrets").passed


WORDS = st.sampled_from(
    [
        *"abc",
        ".a",
        "script",
        "stage",
        "needs",
        "extends",
        "rules",
        "if",
        "parallel",
        "matrix",
        "image",
        "variables",
        "when",
    ]
)
VALUES = st.recursive(
    WORDS | st.integers(-5, 300) | st.none() | st.booleans() | st.just("$A =~ /ab/"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=25,
)


@given(st.dictionaries(WORDS, VALUES, max_size=6))
def test_any_mapping_has_an_outcome(data: dict[str, object]) -> None:
    import json

    finding(json.dumps(data), ALL)


HOSTILE = {
    "references that double": "".join(
        f".r{n}:\n  script:\n" + f"    - !reference [.r{n + 1}, script]\n" * 40 for n in range(9)
    )
    + ".r9:\n  script: [x]\njob:\n  script:\n    - !reference [.r0, script]\n",
    "parents that are large": ".p:\n  variables:\n"
    + "".join(f"    V{n}: x\n" for n in range(3000))
    + "".join(f"j{n}:\n  extends: .p\n  script: x\n" for n in range(2000)),
    "a chain of parents": "".join(f".j{n}:\n  extends: .j{n + 1}\n" for n in range(4000)) + "job:\n  extends: .j0\n",
    "a chain of needs": "".join(f"j{n}:\n  needs: [j{n + 1}]\n  script: x\n" for n in range(3000)),
    "many needs": "".join(
        f"j{n}:\n  needs: [{', '.join(f'j{m}' for m in range(n + 1, n + 6))}]\n  script: x\n" for n in range(1500)
    ),
    "a circle of references": ".a:\n  script: !reference [.b, script]\n.b:\n  script: !reference [.a, script]\n"
    "j:\n  extends: .a\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configurations_end_in_bounded_time(name: str) -> None:
    started = time.process_time()
    assert not finding(HOSTILE[name], ALL).passed
    assert time.process_time() - started < 20
