"""A taskset of verifiers: a prompt and one reply."""

import verifiers.v1 as vf

WORDS = ("stone", "river", "cloud", "paper", "candle", "window", "garden", "winter", "bottle", "silver", "ladder", "a")


class WordData(vf.TaskData):
    answer: str


class WordTask(vf.Task[WordData]):
    @vf.reward
    async def exact(self, trace: vf.Trace) -> float:
        return float(trace.last_reply == self.data.answer)

    @vf.reward(weight=0.5)
    async def length(self, trace: vf.Trace) -> float:
        return min(len(trace.last_reply) / len(self.data.answer), 1.0)

    @vf.metric
    async def truncated(self, trace: vf.Trace, runtime: vf.Runtime) -> float:
        raise AssertionError("a metric that needs a runtime is left out")


class WordsConfig(vf.TasksetConfig):
    upper: bool = False


class Words(vf.Taskset[WordTask, WordsConfig]):
    def load(self):
        for word in WORDS:
            word = word.upper() if self.config.upper else word
            yield WordTask(WordData(prompt=f"Write {word} backwards.", answer=word[::-1]), self.config.task)


__all__ = ["Words"]
