"""An environment of verifiers with several turns: guess a number, told higher or lower."""

import random

import verifiers.v1 as vf


class GuessData(vf.TaskData):
    seed: int


class GuessState(vf.State):
    hints: tuple[str, ...] = ()


class GuessTask(vf.Task[GuessData, GuessState]):
    async def setup(self, trace: vf.Trace) -> None:
        trace.info["ready"] = True

    async def finalize(self, trace: vf.Trace) -> None:
        trace.info["hints"] = len(trace.state.hints)

    @vf.stop
    async def enough(self, trace: vf.Trace) -> bool:
        return trace.state.hints[-3:] == ("lower",) * 3

    @vf.reward(weight=0.1)
    async def heard(self, trace: vf.Trace) -> float:
        assert trace.info["ready"]
        assert trace.num_turns == len(trace.assistant_messages)
        return float(trace.info["hints"])


class GuessEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig(max_turns=6)


class GuessEnv(vf.Env[GuessEnvConfig]):
    async def run(self, task, agents):
        secret = random.Random(task.data.seed).randrange(10)
        won = False
        async with agents.player.interaction(task) as game:
            segment = await game.turn()
            while not segment.terminated:
                digits = "".join(filter(str.isdigit, segment.last_reply))[:9]
                won = digits != "" and int(digits) == secret
                if won:
                    break
                hint = "a number, please" if not digits else "higher" if int(digits) < secret else "lower"
                game.trace.state.hints += (hint,)
                segment = await game.turn(hint)
        game.trace.record_reward("won", float(won))

    async def finalize(self, task, episode):
        (trace,) = episode.traces
        trace.record_reward("cut", float(trace.stop_condition == "max_turns"), weight=0.0)


class Guess(vf.Taskset[GuessTask, vf.TasksetConfig]):
    INFINITE = True

    def load(self):
        seed = 0
        while True:
            data = GuessData(prompt=f"Guess my number, 0 to 9 ({seed}).", system_prompt="You play.", seed=seed)
            yield GuessTask(data, self.config.task)
            seed += 1


__all__ = ["Guess", "GuessEnv"]
