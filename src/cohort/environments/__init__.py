"""What a policy acts in: nothing, where its first reply is its last; tools that it calls; an environment of yours.

def weather(city: str) -> str: ...                      # type hints and a docstring make it a tool

[environment]
tools = ["calculator", "my_tools:weather"]
"""

from cohort.environments.dialogue import Dialogue, choose_format, open_dialogue
from cohort.environments.episodes import Episodes, OneTurn, Played, Player, Rules, SingleTurn
from cohort.environments.formats import FORMATS, Format, FormatName
from cohort.environments.tools import Tool, ToolError, Tools
from cohort.environments.world import ENVIRONMENTS, TOOLS, World, build_environment, build_tools, open
from cohort.types import InfrastructureError, Observation

__all__ = [
    "ENVIRONMENTS",
    "FORMATS",
    "TOOLS",
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
    "World",
    "build_environment",
    "build_tools",
    "choose_format",
    "open",
    "open_dialogue",
]
