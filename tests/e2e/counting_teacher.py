"""A teacher that speaks OpenAI's protocol on loopback and counts who asks it what.

A server in a thread of its own: the services that ask it are processes, and the test that starts
it may be busy or asleep.
"""

from __future__ import annotations

import collections
import dataclasses
import http.server
import json
import threading
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Fact:
    """What the teacher knows."""

    question: str
    answer: str
    wordings: tuple[str, ...]


class CountingTeacher:
    """Knows some lessons; each is told to whoever asks its first question."""

    def __init__(self, lessons: Sequence[Sequence[Fact]]) -> None:
        self._lessons = {lesson[0].question: lesson for lesson in lessons}
        self.calls: collections.Counter[str] = collections.Counter()
        """How often each lesson was asked for."""
        self._asked = {question: threading.Event() for question in self._lessons}
        self._open = {question: threading.Event() for question in self._lessons}
        for event in self._open.values():
            event.set()
        handler = type("Handler", (_Handler,), {"teacher": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> CountingTeacher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for event in self._open.values():
            event.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def hold(self, question: str) -> None:
        """Keeps everybody who asks this waiting, until `release`."""
        self._open[question].clear()

    def until_asked(self, question: str, limit_s: float) -> bool:
        """Waits until somebody asks this; false where nobody does in time."""
        return self._asked[question].wait(limit_s)

    def release(self, question: str) -> None:
        self._open[question].set()

    def answer(self, conversation: str) -> str:
        """The lesson whose question stands in the conversation, as JSON."""
        question = next(question for question in self._lessons if question in conversation)
        self.calls[question] += 1
        self._asked[question].set()
        self._open[question].wait()
        facts = [
            {
                "asked": [1] if fact.question == question else [],
                "question": fact.question,
                "answer": fact.answer,
                "wordings": list(fact.wordings),
            }
            for fact in self._lessons[question]
        ]
        return json.dumps(
            {"title": f"Lesson {list(self._lessons).index(question)}", "facts": facts}
        )


class _Handler(http.server.BaseHTTPRequestHandler):
    teacher: CountingTeacher

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = self.teacher.answer(json.dumps(body["messages"], ensure_ascii=False))
        message = {"role": "assistant", "content": text}
        completion: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "counting",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }
        data = json.dumps(completion).encode()
        try:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # Whoever asked was killed meanwhile.

    def log_message(self, *args: object) -> None:
        """Nobody reads it."""
