"""An API key stands in nothing that leaves the process, a row's text in nothing but its answer."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from llmkit import session
from tests.loopback import Loopback, Reset, Status, rate_limited, server_error
from tests.process.child import Child

#: One that looks like a key, and one of a house that names its keys otherwise.
KEYS = ["sk-proj-CANARYKEY0123456789abcdefghij", "CANARYKEY.of.the.house.4711"]
TEXT = "CANARY-PII Mrs Mayer of 17 Mill Lane"

#: Runs into every kind of trouble and writes down whatever a user, a logger or a debugger might see of it.
TROUBLE = """
import copy, logging, pickle, traceback, warnings
from pathlib import Path

logging.basicConfig(filename="everything.log", level=logging.DEBUG)
logging.captureWarnings(True)
warnings.simplefilter("always")
session = llmkit.session.default()

def write(name, *things):
    with open(f"{name}.txt", "a") as file:
        for thing in things:
            print(thing if isinstance(thing, str) else repr(thing), file=file)

def frame():
    return pd.DataFrame({"text": [f"row {i}: %s" for i in range(10, 30)]})

def outcome(function):
    try:
        return function()
    except llmkit.LLMError as error:
        write("messages", error, str(error), error.args, getattr(error, "__notes__", ()))
        Path(f"pickled-{len(list(Path().glob('pickled-*')))}").write_bytes(pickle.dumps(error))
        write("messages", copy.copy(error), pickle.loads(pickle.dumps(error)), vars(error))
        for chain in (True, False):
            told = traceback.TracebackException.from_exception(error, capture_locals=True, compact=chain)
            # Not the caller's own frames, nor the front door's, whose arguments are his: what he keeps in variables is his affair.
            told.stack = traceback.StackSummary.from_list(
                [one for one in told.stack if one.filename != "<string>" and not one.filename.endswith(("front.py", "asking.py"))]
            )
            write("tracebacks", "".join(told.format()))
        return None

def look_at(run):
    write("messages", run, run.summary(), run.errors().to_string(), copy.copy(run.errors()).to_csv(), run.stopped)
    write("messages", *run.tasks())
    for error in run.outcomes.errors.values():
        write("messages", error, str(error), vars(error))
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        write("tracebacks", "".join(told.format()))
        Path(f"pickled-{len(list(Path().glob('pickled-*')))}").write_bytes(pickle.dumps(error))

def chat(**options):
    return frame().llm.chat("Answer: {text}", model="lab/m", cache="off", **{"max_attempts": 3, **options})

def stage(name):
    say(name)
    hear()

stage("rows refused, retried, and served")
run = chat(wait=False, show_progress=False)
result = run.result()
look_at(run)
write("messages", dict(result.attrs))
outcome(lambda: chat(on_error="raise"))
write("messages", frame().llm.chat("Answer: {text}", model="lab/m", dry_run=True))
llmkit.chat("row 97: %s", model="lab/busy")

stage("the key refused")
outcome(chat)
look_at(llmkit.last())
outcome(lambda: llmkit.chat("row 99: %s", model="lab/m"))
outcome(lambda: llmkit.embed(["row 98: %s"], model="lab/m"))

stage("nobody there")
llmkit.add_provider("lab", "http://127.0.0.1:9/v1", api_key=os.environ["LAB_KEY"])
outcome(lambda: chat(max_attempts=1))
look_at(llmkit.last())

target = session.target("lab/m", "chat")
template = llmkit.event_loop.call(session.engine.template, target)
write("reprs", session, session.settings, session.engine, target, target.secret, template, target.provider, vars(session))
write("reprs", vars(session.engine), vars(session.engine.transport), list(session.engine._accounts))

stage("something to keep")
llmkit.add_provider("lab", server, api_key=os.environ["LAB_KEY"])
frame().llm.chat("Keep: {text}", model="lab/m").to_frame("answer").to_parquet("answers.parquet")
""" % ((TEXT,) * 4)


def refused(message: str, status: int = 400) -> Status:
    return Status(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})


@pytest.fixture(scope="module", params=KEYS, ids=["usual", "unusual"])
def traces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Everything that a process in trouble left behind: file name to content. The key was ``request.param``."""
    key, home = request.param, tmp_path_factory.mktemp("home")
    with Loopback() as server, Child(TROUBLE, server.url, home, LAB_KEY=key) as child:
        server.key = key
        server.answer = lambda body: "fine"  # so that a text on the disk could only be a prompt

        def stage(name: str) -> None:
            assert name == child.hear()
            child.tell("go")

        server.fault("row 13", refused(f"Invalid prompt: 'Answer: row 13: {TEXT}'"), times=float("inf"))
        server.fault("row 14", refused(f"We do not like {TEXT}!", 422), times=float("inf"))
        server.fault("row 15", server_error(), Reset(), refused(f"Upstream failed on {TEXT}", 500), times=2)
        server.fault("row 97", refused(f"Too many of {TEXT}", 429), rate_limited(), times=1)
        server.fault("row 16", refused(f"Your key {key} may not ask this", 400), times=float("inf"))
        stage("rows refused, retried, and served")
        assert "the key refused" == child.hear()
        server.clear_faults()
        server.fault(None, refused(f"Incorrect API key provided: {key}. Authorization: Bearer {key}", 401), times=float("inf"))
        child.tell("go")
        stage("nobody there")
        assert "something to keep" == child.hear()
        server.clear_faults()
        child.tell("go")
        errors = child.end()
        assert {f"Bearer {key}"} == {seen.headers["authorization"] for seen in server.seen}
    found = {path.name: path.read_bytes().decode("latin-1") for path in home.rglob("*") if path.is_file()}
    assert {"everything.log", "messages.txt", "tracebacks.txt", "reprs.txt", "shard-000.sqlite", "answers.parquet"} <= set(found)
    assert "fine" in found["shard-000.sqlite"]
    return {**found, "stderr": errors}


def holding(traces: dict[str, str], what: str, names: tuple[str, ...]) -> list[str]:
    """Where ``what`` stands, with its surroundings, in the files whose names begin with one of ``names``."""
    places = []
    for name, content in traces.items():
        at = content.find(what)
        if at >= 0 and name.startswith(names):
            places.append(f"{name}: ...{content[max(0, at - 300) : at + 100]}...")
    return places


SAID = ("messages", "pickled", "stderr")
KEPT = ("shard", "answers")


def test_no_message_repr_or_pickle_of_an_error_holds_the_key(traces: dict[str, str]) -> None:
    assert [] == holding(traces, "CANARYKEY", SAID)


def test_no_message_repr_or_pickle_of_an_error_holds_a_rows_text(traces: dict[str, str]) -> None:
    assert [] == holding(traces, "Mrs Mayer", SAID)


def test_the_errors_were_kept_with_their_reasons(traces: dict[str, str]) -> None:
    for word in ("invalid_request", "key_rejected", "nothing answers at 127.0.0.1:9"):
        assert word in traces["messages.txt"], word


def test_no_log_holds_the_key(traces: dict[str, str]) -> None:
    assert [] == holding(traces, "CANARYKEY", ("everything.log",))


def test_no_log_holds_a_rows_text(traces: dict[str, str]) -> None:
    assert [] == holding(traces, "Mrs Mayer", ("everything.log",))


def test_no_traceback_with_local_variables_shows_the_key(traces: dict[str, str]) -> None:
    assert [] == holding(traces, "CANARYKEY", ("tracebacks",))


def test_no_traceback_with_local_variables_shows_a_rows_text(traces: dict[str, str]) -> None:
    assert [] == holding(traces, "Mrs Mayer", ("tracebacks",))


def test_no_repr_of_a_part_of_llmkit_shows_the_key(traces: dict[str, str]) -> None:
    assert [] == holding(traces, "CANARYKEY", ("reprs",))


def test_no_file_holds_the_key(traces: dict[str, str]) -> None:
    assert [] == holding(traces, "CANARYKEY", KEPT)


def test_no_file_holds_a_prompt(traces: dict[str, str]) -> None:
    assert [] == holding(traces, "Mrs Mayer", KEPT)


def test_a_target_is_neither_pickled_nor_copied_with_its_key(lab: Loopback, tmp_path: Path) -> None:
    target = session.default().target("lab/m", "chat")
    assert target.secret is not None
    assert "test-key-not-real" not in repr(target) + repr(target.secret) + str(target.secret)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="environment variable"):
            copied(target.secret)
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(target)
