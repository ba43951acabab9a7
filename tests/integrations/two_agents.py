"""An environment of verifiers with two agents."""

import verifiers.v1 as vf


class TalkConfig(vf.EnvConfig):
    asker: vf.AgentConfig = vf.AgentConfig()
    answerer: vf.AgentConfig = vf.AgentConfig()


class TalkEnv(vf.Env[TalkConfig]):
    async def run(self, task, agents):
        await agents.asker.run(task)


class Talk(vf.Taskset[vf.Task, vf.TasksetConfig]):
    def load(self):
        return [vf.Task(vf.TaskData(prompt="Hello?"))]


__all__ = ["Talk", "TalkEnv"]
