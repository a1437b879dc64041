"""The checks by name; docs/checks.md has a table of them (`make docs`)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gpurig.evaljobs.checks import choice, code, custom, embedding, measures, similarity, structure, text, usage
from gpurig.evaljobs.checks.gitlab import checks as gitlab
from gpurig.evaljobs.checks.gitlab import lint
from gpurig.evaljobs.checks.kind import Check, Embeds
from gpurig.evaljobs.checks.parameters import Parameters

_YAML = ("pyyaml",)
_SCHEMAS = ("pyyaml", "jsonschema", "check-jsonschema")

_TEXT = (
    Check(
        "contains",
        "Text",
        text.Contains,
        text.contains,
        "the texts are in the answer: `all` of them, `any`, or all one behind the other (`ordered`); "
        "the score of several is the share that is there",
        shorthand="text",
        version=2,
    ),
    Check("not-contains", "Text", text.NotContains, text.not_contains, "none of the texts is in it", shorthand="text"),
    Check(
        "starts-with",
        "Text",
        text.Edge,
        text.starts_with,
        "it begins with one of the texts; white space around it does not count",
        shorthand="text",
    ),
    Check("ends-with", "Text", text.Edge, text.ends_with, "it ends with one of the texts", shorthand="text"),
    Check(
        "equals",
        "Text",
        text.Equals,
        text.equals,
        "it is one of the texts, or the sample's reference where no text is given; `normalize` lists what does not "
        "count: `case`, `spaces`, `punctuation`, `unicode` (NFKC), `accents`",
        shorthand="text",
    ),
    Check(
        "regex",
        "Text",
        text.Regex,
        text.regex,
        "the pattern matches (`search` anywhere, or `full`); with `expect: false`, where it does not. "
        "Over 2 seconds on one answer is a failure",
        shorthand="pattern",
        packages=("regex",),
    ),
    Check(
        "length",
        "Text",
        measures.Length,
        measures.length,
        "it has at least `min` and at most `max` of the `unit`: `characters`, `words`, `lines` or `tokens`",
        uses=("usage",),
    ),
    Check(
        "language",
        "Text",
        measures.Language,
        measures.language,
        "its prose (without fenced code) is in one of the languages, ISO 639-1; or the classifier (py3langid, offline) "
        "is less than `confidence` sure that it is another",
        shorthand="code",
        packages=("py3langid",),
    ),
    Check(
        "choice",
        "Text",
        choice.Choice,
        choice.choice,
        "the letter that it chose is `answer`, or the reference's; `options` are the texts of the letters, which an "
        "answer may repeat instead",
        shorthand="answer",
    ),
)

_STRUCTURE = (
    Check(
        "yaml",
        "Structure",
        structure.Document,
        structure.is_yaml,
        "it is a YAML mapping or list, and no key stands twice",
        packages=_YAML,
    ),
    Check("json", "Structure", structure.Json, structure.is_json, "it is JSON: of that `type`, no key twice, no NaN"),
    Check(
        "json-schema",
        "Structure",
        structure.JsonSchema,
        structure.follows_json_schema,
        "it follows the JSON schema (a mapping, or the name of a file beside the suite); `format` is `json` or `yaml`",
        shorthand="schema",
        packages=("pyyaml", "jsonschema"),
    ),
    Check(
        "gitlab-ci",
        "Structure",
        structure.Document,
        structure.is_gitlab_ci,
        "it follows GitLab's JSON schema of `.gitlab-ci.yml` (as check-jsonschema carries it, offline; a `!reference` "
        "is what it names)",
        version=2,
        packages=_SCHEMAS,
    ),
    Check(
        "gitlab-ci-lint",
        "Structure",
        lint.Lint,
        lint.is_linted,
        "GitLab's lint API finds no fault in it; `unasked`: `fail` or `skip` where there is no GitLab to ask",
    ),
    Check(
        "github-workflow",
        "Structure",
        structure.Document,
        structure.is_github_workflow,
        "it follows the JSON schema of GitHub's workflow files (as check-jsonschema carries it, offline)",
        packages=_SCHEMAS,
    ),
)

_MEANING = (
    Check(
        "gitlab-ci-semantics",
        "Meaning of CI configurations",
        gitlab.Semantics,
        gitlab.has_sound_semantics,
        "the configuration is sound under every one of the `aspects` (below); the score is the share of those that are",
        packages=("pyyaml", "regex"),
    ),
    Check(
        "gitlab-ci-translation",
        "Meaning of CI configurations",
        gitlab.Translation,
        gitlab.is_translation,
        "every job of the GitHub workflow in `source` (a variable of the sample, or `input`) is there, runs as often "
        "(`matrix`) and waits for what it needs (`order`); the score is the share of such jobs",
        shorthand="source",
        packages=_YAML,
        uses=("vars",),
    ),
    Check(
        "no-secrets",
        "Meaning of CI configurations",
        Parameters,
        gitlab.has_no_secrets,
        "it holds no token of a known form, no private key, no password in an address",
    ),
)

_CODE = (
    Check(
        "python",
        "Code",
        code.Python,
        code.is_python,
        "it is Python that the running interpreter parses (`minor`: as 3.minor), and defines every name in `defines`; "
        "nothing is run",
    ),
    Check(
        "shell",
        "Code",
        code.Code,
        code.is_shell,
        "`bash -n` finds no fault in it; nothing is run",
    ),
)

_SACREBLEU = ("sacrebleu",)
_RAPIDFUZZ = ("rapidfuzz",)
_SIMILARITY = (
    Check(
        "bleu",
        "Similarity",
        similarity.Similar,
        similarity.bleu,
        "its BLEU is at least `threshold` (sacrebleu: mteval-13a tokens, exponential smoothing, effective order)",
        shorthand="threshold",
        packages=_SACREBLEU,
    ),
    Check(
        "chrf",
        "Similarity",
        similarity.Chrf,
        similarity.chrf,
        "its chrF is at least `threshold` (sacrebleu); `word_order: 2` is chrF++",
        shorthand="threshold",
        packages=_SACREBLEU,
    ),
    Check(
        "rouge-l",
        "Similarity",
        similarity.Similar,
        similarity.rouge_l,
        "its ROUGE-L is at least `threshold`: the F1 of the longest common subsequence of words, without case and "
        "punctuation",
        shorthand="threshold",
        packages=_RAPIDFUZZ,
    ),
    Check(
        "edit-distance",
        "Similarity",
        similarity.Edit,
        similarity.edit_distance,
        "1 - Levenshtein's distance / the longer one's length, in `characters` or `words`, is at least `threshold`",
        shorthand="threshold",
        packages=_RAPIDFUZZ,
    ),
)

_EMBEDDING = (
    Check(
        "embedding-similarity",
        "Embeddings",
        embedding.EmbeddingSimilarity,
        embedding.embedding_similarity,
        "the cosine of its vector and the nearest reference's is at least `threshold`; `model` is an embedding model",
        shorthand="model",
        packages=("llama-cpp-python",),
        embeds=Embeds(embedding.similarity_texts),
    ),
    Check(
        "retrieval",
        "Embeddings",
        embedding.Retrieval,
        embedding.retrieval,
        "the question finds the `relevant` files of a `folder`: the `measure` (`hit`, `recall`, `ndcg` over the first "
        "`k` files, or `mrr`) is at least `threshold`",
        packages=("llama-cpp-python",),
        uses=("vars",),
        embeds=Embeds(embedding.retrieval_texts, embedding.retrieval_passages),
    ),
)

_COST = (
    Check(
        "latency",
        "Cost",
        usage.Latency,
        usage.latency,
        "computing it took at most so many `seconds`",
        shorthand="seconds",
        uses=("usage",),
    ),
    Check(
        "tokens",
        "Cost",
        usage.Tokens,
        usage.tokens,
        "`prompt` and `completion` have at most so many tokens",
        shorthand="completion",
        uses=("usage",),
    ),
    Check(
        "tokens-per-second",
        "Cost",
        usage.Speed,
        usage.speed,
        "at least `min` tokens were written in a second of computing",
        shorthand="min",
        uses=("usage",),
    ),
)

_CUSTOM = (
    Check(
        "custom",
        "Your own",
        custom.Custom,
        custom.custom,
        "the function with the entry point `name` (group `gpurig.checks`) says so; it gets `parameters`, and runs only "
        "with `--allow-check NAME`",
        shorthand="name",
        uses=("vars", "usage"),
    ),
)

_ALL = (*_TEXT, *_STRUCTURE, *_MEANING, *_CODE, *_SIMILARITY, *_EMBEDDING, *_COST, *_CUSTOM)
CHECKS: Mapping[str, Check] = MappingProxyType({check.name: check for check in _ALL})
