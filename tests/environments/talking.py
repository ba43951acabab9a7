"""An environment, rewards and tools in a module of their own, as a user has them."""

from cohort.types import InfrastructureError, Observation


class Talks:
    """Speaks twice to a rollout. For a prompt that holds `lost` the world fails; for one that holds `bad`, its code."""

    def __init__(self, often=2, lost=None, bad=None):
        self.often, self.lost, self.bad = often, lost, bad

    def reset(self, prompt, seed):
        return {"question": prompt.question, "seed": seed, "spoken": 0}

    def step(self, state, reply):
        if self.bad is not None and self.bad in state["question"]:
            raise NameError("this environment is broken")
        if self.lost is not None and self.lost in state["question"]:
            raise InfrastructureError("the server is down")
        state["spoken"] += 1
        if state["spoken"] > self.often:
            return Observation()
        return Observation(({"role": "user", "content": f"once more {state['spoken']}"},))


def vowels(completion, transcript):
    """The share of vowels of all that the policy wrote: a random policy varies in it."""
    assert transcript[-1] == {"role": "assistant", "content": completion}
    assert [message["role"] for message in transcript] == ["assistant", "user"] * (len(transcript) // 2) + ["assistant"]
    text = "".join(message["content"] for message in transcript[::2])
    return sum(c in "aeiou" for c in text) / (1 + len(text))


def spoken_to(transcript):
    """1 where the environment has said something."""
    return float(len(transcript) > 1)


def messages_of_trl(prompts, completions, **columns):
    """In TRL's form, for prompts that are conversations."""
    return [float(len(completion)) for completion in completions]
