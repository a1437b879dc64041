"""Whether code in an answer is well-formed: python, shell. Nothing of it is run."""

from __future__ import annotations

import ast
import shutil
import warnings

from pydantic import Field

from gpurig.common.errors import PrerequisiteError
from gpurig.common.process import run
from gpurig.evaljobs.checks.parameters import Parameters
from gpurig.evaljobs.checks.subject import Answer, Extract, Finding, extract, shown

# Python's own parser needs a deep stack for deep code, and a shell's is a program that takes what it is given.
MAX_CHARACTERS = 200_000
_SHELL_SECONDS = 10.0


class Code(Parameters):
    """Parameters of checks on code."""

    extract: Extract = "code-block"


class Python(Code):
    """Parameters of `python`.

    Attributes:
        minor: the version 3.minor whose grammar is meant; the running one's where none is given.
        defines: functions and classes that must be defined at the top.
    """

    minor: int | None = Field(default=None, ge=7, le=99)
    defines: list[str] = Field(default_factory=list)


def is_python(answer: Answer, parameters: Python) -> Finding:
    """Fails where the answer is no Python, as the running interpreter's parser sees it."""
    code = extract(answer.output, parameters.extract)
    if problem := _unreadable(code):
        return Finding(problem)
    try:
        with warnings.catch_warnings():
            # An invalid escape is a warning of the code's, not of ours.
            warnings.simplefilter("ignore")
            tree = ast.parse(code, feature_version=(3, parameters.minor) if parameters.minor else None)
    except SyntaxError as error:
        where = f" in line {error.lineno}" if error.lineno else ""
        return Finding(f"no valid Python{where}: {error.msg}: {shown((error.text or '').strip(), 60)}")
    except (ValueError, RecursionError, MemoryError) as error:
        return Finding(f"no valid Python: {error or 'it is nested too deeply'}")
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    defined = {node.name for node in tree.body if isinstance(node, kinds)}
    if missing := [name for name in parameters.defines if name not in defined]:
        found = ", ".join(sorted(defined)[:10]) or "nothing"
        return Finding(f"expected a definition of {shown(missing[0], 60)}, found {shown(found)}")
    return Finding()


def is_shell(answer: Answer, parameters: Code) -> Finding:
    """Fails where bash finds a fault in the script; it reads it (`bash -n`) and runs nothing.

    Raises:
        PrerequisiteError: there is no bash.
    """
    code = extract(answer.output, parameters.extract)
    if problem := _unreadable(code):
        return Finding(problem)
    if "\0" in code:
        return Finding("no valid script: it holds a zero byte")
    bash = shutil.which("bash")
    if bash is None:
        raise PrerequisiteError("bash is not installed, and the check shell needs it", hint="apt install bash")
    argv = [bash, "--noprofile", "--norc", "-n", "/dev/stdin"]
    text = code.encode("utf-8", "replace").decode()
    # Without our environment: BASH_ENV names a file that bash would run.
    try:
        done = run(argv, timeout_s=_SHELL_SECONDS, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, stdin=text)
    except PrerequisiteError as error:  # bash is there: it took too long
        return Finding(f"no usable script: {error}")
    if done.code == 0:
        return Finding()
    first = next((line for line in done.stderr.splitlines() if line.strip()), "bash does not say why")
    return Finding(f"no valid script: {shown(first.removeprefix('/dev/stdin: '), 200)[1:-1]}")


def _unreadable(code: str) -> str:
    if not code.strip():
        return "the answer is empty"
    if len(code) > MAX_CHARACTERS:
        return f"the code has {len(code)} characters, more than {MAX_CHARACTERS}"
    return ""
