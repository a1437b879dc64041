"""gpurig-job with-model MODEL --name judge -- inspect eval inspect_task.py --model openai-api/openai/judge."""

from typing import Literal

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, ResponseSchema
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import Tool, ToolFunction, tool
from inspect_ai.util import JSONSchema

LINES = {
    "build": ("fatal: unable to access 'https://git.example.com/': Could not resolve host", "network"),
    "unit": ("AssertionError: 3 != 4", "code"),
    "lint": ("error: expected ';' before 'return'", "code"),
    "image": ("dial tcp 10.0.0.7:443: i/o timeout", "network"),
}


@tool
def last_line() -> Tool:
    """What the model may look up."""

    async def execute(job: Literal["build", "unit", "lint", "image"]) -> str:
        """The last line of a job's log.

        Args:
            job: the job's name.
        """
        return LINES[job][0]

    return execute


@solver
def cause() -> Solver:
    """An answer in JSON, which the server's grammar holds the model to."""
    schema = JSONSchema(
        type="object",
        properties={"cause": JSONSchema(type="string", enum=["network", "code"])},
        required=["cause"],
        additionalProperties=False,
    )

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.tools = []
        form = ResponseSchema(name="cause", json_schema=schema, strict=True)
        return await generate(state, response_schema=form)

    return solve


@task
def why_did_it_fail() -> Task:
    """The model has to look at the log, and then to say what it was."""
    samples = [
        Sample(id=job, input=f"Did the job {job} fail for the network or for the code?", target=answer)
        for job, (_, answer) in LINES.items()
    ]
    look = use_tools(last_line(), tool_choice=ToolFunction("last_line"))
    return Task(
        dataset=samples,
        solver=[look, generate(tool_calls="single"), cause()],
        scorer=includes(),
        config=GenerateConfig(temperature=0, max_tokens=300),
    )
