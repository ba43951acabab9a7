"""Environments of verifiers that cannot be played here, or that break: one package, what it does is an argument."""

import itertools
from typing import Literal

import verifiers.v1 as vf

CALLS = itertools.count()

Way = Literal[
    "container", "image", "intercept", "runtime", "stop", "tools",
    "twice", "provision", "draws", "raises", "down", "opens", "exits", "silent", "picture", "reward_raises",
]  # fmt: skip


class OddConfig(vf.TasksetConfig):
    way: Way = "opens"


class OddData(vf.TaskData):
    way: str


class Plain(vf.Task[OddData]):
    @vf.reward
    async def replies(self, trace: vf.Trace) -> float:
        if self.data.way == "reward_raises":
            raise KeyError("no such column")
        return float(trace.num_turns)


class InContainer(Plain):
    NEEDS_CONTAINER = True


class Intercepts(Plain):
    @vf.intercept
    async def look(self, request: vf.Request) -> vf.Request:
        return request


class NeedsRuntime(Plain):
    @vf.reward
    async def files(self, runtime: vf.Runtime) -> float:
        return 1.0


class StopsAtRequests(Plain):
    @vf.stop
    async def long(self, request: vf.Request) -> bool:
        return False


class Search(vf.Toolset[vf.ToolsetConfig]):
    @vf.tool
    def search(self, query: str) -> str:
        """Search."""
        return query


class HasTools(Plain):
    @classmethod
    def toolsets(cls, config):
        return [Search(vf.ToolsetConfig())]


KINDS = {
    "container": InContainer,
    "intercept": Intercepts,
    "runtime": NeedsRuntime,
    "stop": StopsAtRequests,
    "tools": HasTools,
}


class OddEnv(vf.SingleAgentEnv):
    async def run(self, task, agents):
        way = task.data.way
        if way == "silent":
            return
        if way == "provision":
            async with agents.agent.provision(task):
                return
        async with agents.agent.interaction(task) as talk:
            await talk.turn("Hello.")
            if way == "raises":
                raise KeyError("a mistake")
            if way == "exits":
                raise SystemExit("goodbye")
            if way == "down":
                raise ConnectionRefusedError("nobody there")
            if way == "draws":
                await talk.turn(f"Call {next(CALLS)}.")
            if way == "picture":
                part = vf.ImageUrlContentPart(image_url=vf.ImageUrlSource(url="data:image/png;base64,AA=="))
                await talk.turn([vf.UserMessage(content=[part])])
            await talk.turn([vf.SystemMessage(content="Mind the time."), {"role": "user", "content": "And?"}])
        if way == "twice":
            await agents.agent.run(task)


class Odd(vf.Taskset[Plain, OddConfig]):
    def load(self):
        way = self.config.way
        data = OddData(way=way, image="ubuntu" if way == "image" else None)
        for _ in range(2):
            yield KINDS.get(way, Plain)(data, self.config.task)


__all__ = ["Odd", "OddEnv"]
