"""The executor of untrusted code: programs and functions that a model wrote, run where they can do no harm.

    with Sandbox() as sandbox:
        sandbox.run("print(int(input()) + 1)", stdin="1", time_s=5.0)     # Run(status="ok", output=b"2\\n", ...)

It executes and reports; it never judges. What the right answer is stays with the caller, so code that lies, crashes or
rewrites its own process gains nothing.
"""

from cohort.sandbox.contract import LEVELS, WALL_PER_CPU, Executor, Isolation, Level, Limits, Run, SandboxError
from cohort.sandbox.local import Sandbox
from cohort.sandbox.remote import RemoteSandbox

__all__ = [
    "LEVELS",
    "WALL_PER_CPU",
    "Executor",
    "Isolation",
    "Level",
    "Limits",
    "RemoteSandbox",
    "Run",
    "Sandbox",
    "SandboxError",
]
