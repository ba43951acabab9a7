"""The grader's side of one run against a launcher that is played by the test, and the channel between them."""

import os
import socket
import threading
import time

import pytest

from cohort.sandbox import SandboxError
from cohort.sandbox.session import Session
from cohort.sandbox.wire import FAILED, READY, VALUE, Channel, pack, write_frame


class Launcher(threading.Thread):
    """Answers each message as `answer(channel, message)` says; closes its end when that returns False."""

    def __init__(self, answer):
        super().__init__()
        ours, theirs = socket.socketpair()
        self.channel, self.theirs = Channel(ours), Channel(theirs)
        self.answer = answer
        self.messages = []
        self.start()

    def run(self):
        while (message := self.theirs.receive()) is not None:
            self.messages.append(message)
            if self.answer(self.theirs, message) is False:
                break
        self.theirs.close_descriptors()
        self.theirs.close()

    def __enter__(self):
        return self.channel

    def __exit__(self, *_):
        self.channel.close()
        self.join()


ENDED = {"signal": None, "exit": 0, "used_s": 0.1}


def ready(channel, message):
    """Start a run."""
    if "run" in message:
        write_frame(channel.descriptors[3], READY)
    return "run" in message


def test_two_messages_that_arrive_together_are_both_taken(monkeypatch):
    monkeypatch.setattr("cohort.sandbox.session._LAUNCHER_S", 1.0)

    def answer(channel, message):
        if not ready(channel, message) and len(launcher.messages) == 2:  # what is asked after the end has no answer
            both = b'{"run": 1, "used_s": 0.01}\n{"run": 1, "signal": null, "exit": 0, "used_s": 0.01}\n'
            channel.connection.sendall(both)

    launcher = Launcher(answer)
    with launcher as channel, Session(channel, 1, 5, b"", 1000) as session:
        session.wait(0.05, time.monotonic() + 30)
        assert session.ended is not None


def test_the_launcher_is_asked_for_the_time_only_when_it_may_be_used_up():
    def answer(channel, message):
        if not ready(channel, message):
            if "ask" in message:
                channel.send(run=1, used_s=0.01 * len(launcher.messages))
            else:
                channel.send(run=1, **ENDED)

    launcher = Launcher(answer)
    with launcher as channel, Session(channel, 1, 5, b"", 1000) as session, pytest.raises(TimeoutError):
        session.wait(0.05, time.monotonic() + 30)
    assert 3 <= sum("ask" in message for message in launcher.messages) <= 8


def test_it_ends_at_the_deadline_whatever_time_was_used():
    def answer(channel, message):
        if not ready(channel, message):
            channel.send(run=1, **({"used_s": 0.0} if "ask" in message else ENDED))

    with Launcher(answer) as channel, Session(channel, 1, 5, b"", 1000) as session, pytest.raises(TimeoutError):
        session.wait(0.05, time.monotonic() + 0.2)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (lambda channel, message: False, "has ended"),
        (lambda channel, message: channel.send(run=1, failed="no memory"), "no memory"),
        (lambda channel, message: channel.connection.sendall(b"nonsense\n"), "cannot be reached"),
        (lambda channel, message: channel.send(run=1, **ENDED), "ended at its start"),
        (lambda channel, message: write_frame(channel.descriptors[3], FAILED, b"no way"), "no way"),
        (lambda channel, message: write_frame(channel.descriptors[3], VALUE, b"n"), "could not be confined"),
    ],
)
def test_a_launcher_that_fails_is_an_error_of_the_sandbox(reply, words):
    def answer(channel, message):
        return reply(channel, message) if "run" in message else channel.send(run=1, **ENDED)

    descriptors = len(os.listdir("/proc/self/fd"))
    with Launcher(answer) as channel, pytest.raises(SandboxError, match=words), Session(channel, 1, 5, b"", 1000):
        pytest.fail("it must not start")
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_launcher_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr("cohort.sandbox.session._LAUNCHER_S", 0.1)
    with Launcher(lambda channel, message: None) as channel, pytest.raises(SandboxError, match="does not answer"):
        Session(channel, 1, 5, b"", 1000).__enter__()


def test_output_and_frames_that_came_before_the_end_are_kept():
    def answer(channel, message):
        if ready(channel, message):
            os.write(channel.descriptors[1], b"x" * 500)
            write_frame(channel.descriptors[3], VALUE, b"n")
            channel.close_descriptors()
            channel.send(run=1, **ENDED)

    with Launcher(answer) as channel, Session(channel, 1, 5, b"given", 1000) as session:
        session.wait(5, time.monotonic() + 30)
        assert session.output == b"x" * 500
        assert session.last_frames() == [(VALUE, b"n")]


def test_a_frame_in_pieces_is_put_together():
    frame = pack(VALUE, b"abc")

    def answer(channel, message):
        if ready(channel, message):
            for byte in frame:
                os.write(channel.descriptors[3], bytes([byte]))
                time.sleep(0.001)
        else:
            channel.send(run=1, **ENDED)

    with Launcher(answer) as channel, Session(channel, 1, 5, None, 1000) as session:
        assert session.frame(5, time.monotonic() + 30) == (VALUE, b"abc")


def test_descriptors_are_not_lost_behind_a_message_that_came_too_late():
    ours, theirs = map(Channel, socket.socketpair())
    reading, writing = os.pipe()
    ours.send(kill=1)
    ours.send((writing,), run=2)
    assert theirs.receive() == {"kill": 1}
    assert theirs.receive() == {"run": 2}
    (received,) = theirs.descriptors
    os.write(received, b"x")
    assert os.read(reading, 1) == b"x"
    theirs.close_descriptors()
    assert theirs.descriptors == []
    for descriptor in (reading, writing):
        os.close(descriptor)
    ours.close()
    assert theirs.receive() is None
    theirs.close()
