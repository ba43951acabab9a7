"""What a policy acts in: nothing, where its first reply is its last; tools that it calls; an environment of yours.

def weather(city: str) -> str: ...                      # type hints and a docstring make it a tool

[environment]
tools = ["calculator", "my_tools:weather"]
"""

from cohort.environments.build import BUILT_IN, build_environment, build_tools
from cohort.environments.dialogue import Dialogue, choose_format, open_dialogue
from cohort.environments.formats import FORMATS, Format, FormatName
from cohort.environments.play import Episodes, OneTurn, Played, Player, Rules
from cohort.environments.single import SingleTurn
from cohort.environments.tool import Tool, ToolError
from cohort.environments.tools import Tools
from cohort.types import InfrastructureError, Observation

__all__ = [
    "BUILT_IN",
    "FORMATS",
    "Dialogue",
    "Episodes",
    "Format",
    "FormatName",
    "InfrastructureError",
    "Observation",
    "OneTurn",
    "Played",
    "Player",
    "Rules",
    "SingleTurn",
    "Tool",
    "ToolError",
    "Tools",
    "build_environment",
    "build_tools",
    "choose_format",
    "open_dialogue",
]
