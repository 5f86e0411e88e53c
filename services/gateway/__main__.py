"""The command line: `python -m services.gateway COMMAND`; `--help` lists the commands.

Every argument may come from the environment as SKILLMESH_ARG_NAME: that is how the Makefile hands
over what people type, without any shell in between that could interpret it.
"""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from services.gateway.command_line import (
    asking,
    demo,
    explaining,
    listing,
    operating,
    questions,
    showing,
    teaching,
    teaching_code,
    telling,
)
from shared import terminal

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Ask, teach and run a local skillmesh cluster.",
)

Json = Annotated[
    bool, typer.Option("--json", envvar="SKILLMESH_ARG_json", help="Print JSON on stdout.")
]
Agent = Annotated[
    str, typer.Option("--agent", envvar="SKILLMESH_ARG_agent", help="Whose memory answers.")
]
Wait = Annotated[
    bool, typer.Option("--wait", envvar="SKILLMESH_ARG_wait", help="Wait for the learning task.")
]


@app.command()
def ask(
    question: Annotated[str, typer.Argument(envvar="SKILLMESH_ARG_q")] = "",
    agent: Agent = "",
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Ask the cluster a question."""
    terminal.run(lambda: asking.ask(question, wait, as_json, agent))


@app.command()
def tell(
    agent: Agent = "",
    question: Annotated[str, typer.Option(envvar="SKILLMESH_ARG_q")] = "",
    answer: Annotated[str, typer.Option(envvar="SKILLMESH_ARG_answer")] = "",
    pairs: Annotated[str, typer.Option(envvar="SKILLMESH_ARG_questions")] = "",
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Tell an agent the right answer to a question, for it to remember."""
    path = pathlib.Path(pairs) if pairs else None
    terminal.run(lambda: telling.tell(agent, question, answer, path, wait, as_json))


@app.command()
def agents(as_json: Json = False) -> None:
    """List the agents of the node."""
    terminal.run(lambda: telling.agents(as_json))


@app.command()
def explain(
    question: Annotated[str, typer.Argument(envvar="SKILLMESH_ARG_q")] = "",
    top_k: Annotated[int, typer.Option(min=1, max=1000)] = 2,
    threshold: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    as_json: Json = False,
) -> None:
    """Tell why a question goes to a card, or to none, and what would change that."""
    terminal.run(lambda: explaining.explain(question, top_k, threshold, as_json))


@app.command()
def teach(
    topic: Annotated[str, typer.Option(envvar="SKILLMESH_ARG_topic")] = "",
    doc: Annotated[str, typer.Option(envvar="SKILLMESH_ARG_doc")] = "",
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Have the cluster learn a topic or a document."""
    terminal.run(lambda: teaching.teach(topic, doc, wait, as_json))


@app.command()
def teach_repo(
    path: Annotated[str, typer.Option(envvar="SKILLMESH_ARG_path")] = "",
    as_json: Json = False,
) -> None:
    """Have the cluster learn the code base of a git repository."""
    terminal.run(lambda: teaching_code.teach(path, as_json))


@app.command()
def cards(as_json: Json = False) -> None:
    """List the skill cards."""
    terminal.run(lambda: listing.cards(as_json))


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the learning tasks."""
    terminal.run(lambda: listing.tasks(as_json))


@app.command()
def nightly(as_json: Json = False) -> None:
    """Learn now what waits for the night."""
    terminal.run(lambda: listing.nightly(as_json))


@app.command()
def up() -> None:
    """Start the local cluster."""
    with terminal.exit_codes():
        operating.up()


@app.command()
def console() -> None:
    """Open the pages of the cluster; start it where it does not run."""
    with terminal.exit_codes():
        showing.console()


@app.command()
def down() -> None:
    """Stop the local cluster."""
    with terminal.exit_codes():
        operating.down()


@app.command()
def status(as_json: Json = False) -> None:
    """Show processes, health, cards and revision."""
    with terminal.exit_codes():
        operating.status(as_json)


@app.command()
def logs(
    service: Annotated[str, typer.Option(envvar="SKILLMESH_ARG_service")] = "",
    lines: Annotated[int, typer.Option(min=1)] = 40,
) -> None:
    """Show the end of the logs."""
    with terminal.exit_codes():
        operating.logs(service, lines)


@app.command(name="demo")
def run_demo(
    doc: Annotated[str, typer.Option(envvar="SKILLMESH_ARG_doc")] = "",
    questions_file: Annotated[
        str, typer.Option("--questions", envvar="SKILLMESH_ARG_questions")
    ] = "",
    seed: Annotated[int | None, typer.Option(envvar="SKILLMESH_ARG_seed")] = None,
    keep: Annotated[bool, typer.Option("--keep", envvar="SKILLMESH_ARG_keep")] = False,
    as_json: Json = False,
) -> None:
    """Fail on hard questions, learn them, answer them right."""

    async def show() -> None:
        # An empty variable of make is no choice.
        document = pathlib.Path(doc) if doc else None
        asked = pathlib.Path(questions_file) if questions_file else None
        await demo.run(questions.load(document, asked), seed, keep, as_json)

    terminal.run(show)


if __name__ == "__main__":
    app()
