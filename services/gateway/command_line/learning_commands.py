"""Commands that ask and teach, as `__main__` adds them."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from services.gateway.command_line import (
    asking,
    completing,
    correcting,
    demo,
    explaining,
    listing,
    options,
    questions,
    teaching,
    teaching_code,
    telling,
)
from shared import terminal


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (ask, explain, teach, teach_repo, correct, tell, agents, nightly):
        app.command()(command)
    app.command("demo")(run_demo)


def ask(
    question: options.Question = "",
    agent: options.Agent = "",
    wait: options.Wait = False,
    as_json: options.Json = False,
) -> None:
    """Ask the cluster a question.

    JSON: an object with answer, card, confidence, rewritten_query, dissonance, task_id; memory
    where an agent's took part, not_learned where nothing is learned of it, cards where several
    answered.
    """
    terminal.run(lambda: asking.ask(question, wait, as_json, agent))


def explain(
    question: options.Question = "",
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Cards to take apart.")] = 2,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="In place of the router's own.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Tell why a question goes to a card, or to none, and what would change that.

    JSON: an object with the fields of ExplainRouteResponse in protos/router.proto.
    """
    terminal.run(lambda: explaining.explain(question, top_k, threshold, as_json))


def teach(
    topic: Annotated[str, options.option(make="topic", help="What to learn, in words.")] = "",
    doc: Annotated[str, options.option(make="doc", help="Path of a document.")] = "",
    repo: Annotated[str, typer.Option(help="Path of a git repository; see teach-repo.")] = "",
    wait: options.Wait = False,
    as_json: options.Json = False,
) -> None:
    """Have the cluster learn a topic, a document or the code base of a repository.

    JSON: the object of `tasks`; with --repo, that of `teach-repo`.
    """
    if not repo:
        terminal.run(lambda: teaching.teach(topic, doc, wait, as_json))
        return
    with terminal.exit_codes():
        if topic or doc:
            raise terminal.UsageError("give one of --topic, --doc and --repo")
    terminal.run(lambda: teaching_code.teach(repo, as_json))


def teach_repo(
    path: Annotated[str, options.option(make="path", help="Of the repository.")] = "",
    as_json: options.Json = False,
) -> None:
    """Have the cluster learn the code base of a git repository, and wait for it.

    JSON: an object with task, code_base, card, sample, use.
    """
    terminal.run(lambda: teaching_code.teach(path, as_json))


def correct(
    question: Annotated[str, options.argument("q", "What was asked.")] = "",
    answer: Annotated[str, options.argument("answer", "What is right.")] = "",
    card: Annotated[
        str,
        typer.Option(
            help="That answered wrongly, such as NAME@DIGEST; left out: whoever answers now.",
            autocompletion=completing.cards,
        ),
    ] = "",
    said: Annotated[str, typer.Option(help="The wrong answer; left out: what is said now.")] = "",
    wait: options.Wait = False,
    as_json: options.Json = False,
) -> None:
    """Tell the right answer to a question that was answered wrongly, and have it learned.

    JSON: an object with task_id, card, said, now; now is an object with answer and card, after
    --wait.
    """
    terminal.run(lambda: correcting.correct(question, answer, card, said, wait, as_json))


def tell(
    agent: options.Agent = "",
    question: Annotated[str, options.option(make="q", help="What it was asked.")] = "",
    answer: Annotated[str, options.option(make="answer", help="What is right.")] = "",
    pairs: Annotated[
        str,
        options.option(
            make="questions", help="JSON file with a list of objects with question and answer."
        ),
    ] = "",
    wait: options.Wait = False,
    as_json: options.Json = False,
) -> None:
    """Tell an agent the right answer to a question, for it to remember.

    JSON: an object with agent, given, queued, now.
    """
    path = pathlib.Path(pairs) if pairs else None
    terminal.run(lambda: telling.tell(agent, question, answer, path, wait, as_json))


def agents(as_json: options.Json = False) -> None:
    """List the agents of the node.

    JSON: a list of objects with agent, memory, examples, queued, rounds, is_settled, mark,
    hit_rate, connected, refused, given_up_count, given_up.
    """
    terminal.run(lambda: telling.agents(as_json))


def nightly(as_json: options.Json = False) -> None:
    """Learn now what waits for the night.

    JSON: a list of objects with task_ids, domain, teacher, base.
    """
    terminal.run(lambda: listing.nightly(as_json))


def run_demo(
    doc: Annotated[str, options.option(make="doc", help="Path of your own document.")] = "",
    questions_file: Annotated[
        str, options.option("--questions", make="questions", help="Path of the questions to it.")
    ] = "",
    seed: Annotated[int | None, options.option(make="seed", help="Of the training.")] = None,
    keep: Annotated[
        bool, options.option("--keep", make="keep", help="Keep the state folder.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Fail on hard questions, learn them, answer them right, in a cluster of its own.

    JSON: an object with document, seed, facts, known, tasks, times_s, cards, summary.
    """

    async def show() -> None:
        # An empty variable of make is no choice.
        document = pathlib.Path(doc) if doc else None
        asked = pathlib.Path(questions_file) if questions_file else None
        await demo.run(questions.load(document, asked), seed, keep, as_json)

    terminal.run(show)
