"""The models that run in this process: word matching without weights, and a real (tiny) model from a directory."""

import hashlib
import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from llmkit.adapter import Target
from llmkit.errors import BadOutput, MissingExtra, ServerFault, UnknownModel, Unsupported
from llmkit.operations.rerank import RerankPayload
from llmkit.providers import local
from llmkit.types import Model, Request

ROOT = Path(__file__).parents[2]
ADAPTER = local.adapter()


def target(model, operation):
    model = model if isinstance(model, Model) else Model("local", str(model))
    return Target(model, local.PROVIDER, ADAPTER, ADAPTER.codecs[operation])


LEXICAL = target(local.MODELS[0], "embed")
BM25 = target(local.MODELS[1], "rerank")


def replies(to, requests):
    return to.codec.decode(ADAPTER.answer(to.codec.encode(requests, to), to), requests)


def embed(texts, to=LEXICAL, **options):
    return replies(to, [Request("embed", text, options) for text in texts])


def vectors(texts, to=LEXICAL, **options):
    size = to.codec.batch_size(to)[0]
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    return np.stack([reply.value for batch in batches for reply in embed(batch, to, **options)])


def scores(query, documents, to=BM25, **options):
    (reply,) = replies(to, [Request("rerank", RerankPayload(query, tuple(documents)), options)])
    return reply.value


@pytest.fixture(scope="module")
def docs():
    spec = importlib.util.spec_from_file_location("stdlib_docs", ROOT / "notebooks" / "stdlib_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.stdlib_docs()


@pytest.fixture(scope="module")
def matrix(docs):
    return vectors(list(docs["text"]))


def first_modules(docs, marks, number):
    order = np.argsort(-marks, kind="stable")
    return list(dict.fromkeys(docs["module"].iloc[at].partition(".")[0] for at in order))[:number]


# ----------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("parse_args", ["parse", "args", "parseargs"]),
        ("ArgumentParser", ["argument", "parser", "argumentparser"]),
        ("HTTPServer.do_GET", ["http", "server", "httpserver", "do", "get", "doget"]),
        ("os.path", ["os", "path"]),
        ("Read A file!", ["read", "a", "file"]),
        ("utf8", ["utf", "8", "utf8"]),
        ("Caf\N{LATIN SMALL LETTER E WITH ACUTE}s", ["caf\N{LATIN SMALL LETTER E WITH ACUTE}s"]),
        ("Cafe\N{COMBINING ACUTE ACCENT}", ["caf\N{LATIN SMALL LETTER E WITH ACUTE}"]),
        ("\u6771\u4eac\u90fd", ["\u6771\u4eac", "\u4eac\u90fd"]),
        ("__", []),
        ("!!!", []),
    ],
)
def test_words_are_split_as_code_readers_see_them(text, found):
    assert local.words(text) == found


def test_a_megabyte_without_a_space_is_many_words_and_not_one():
    assert max(map(len, local.words("x" * 1_000_000))) == 64


# --------------------------------------------------------------------------------------------------------------- lexical


def test_vectors_are_float32_of_length_one_and_of_the_models_size():
    made = vectors(["parse the command line", "a", "ein anderer Text mit Umlauten: \N{LATIN SMALL LETTER U WITH DIAERESIS}ber"])
    assert made.dtype == np.float32
    assert made.shape == (3, local.MODELS[0].dimensions)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)


def test_a_vector_does_not_depend_on_the_batch():
    texts = ["read a csv file", "temporary directory", "random choice from a list", "read a csv file, then write it"]
    together = vectors(texts)
    alone = np.stack([vectors([text])[0] for text in texts])
    assert together.tobytes() == alone.tobytes()
    assert vectors(texts[::-1])[::-1].tobytes() == together.tobytes()


def test_another_process_computes_the_same_bytes():
    texts = ["read a csv file", "parse_args of ArgumentParser", "x" * 500]
    program = (
        "import hashlib; from llmkit.providers.local import lexical_vectors;"
        f"print(hashlib.sha256(lexical_vectors({texts!r}).tobytes()).hexdigest())"
    )
    here = hashlib.sha256(local.lexical_vectors(texts).tobytes()).hexdigest()
    for seed in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == here


def test_threads_compute_the_same_as_one():
    texts = [f"text number {number} about parsing" for number in range(64)]
    expected = vectors(texts).tobytes()
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(vectors(texts).tobytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected] * 4


def test_the_wanted_number_of_dimensions_is_given():
    made = vectors(["read a csv file"], dimensions=128)
    assert made.shape == (1, 128)
    assert np.linalg.norm(made) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("wanted", [0, 15, 1e3, "512", True, 10**9])
def test_a_number_of_dimensions_that_cannot_be_is_refused(wanted):
    with pytest.raises(Unsupported, match="dimensions"):
        embed(["text"], dimensions=wanted)


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(Unsupported, match="temperature"):
        embed(["text"], temperature=1)


def test_a_text_without_any_word_is_a_bad_output_and_its_neighbours_are_kept():
    first, second, third = embed(["!!!", "words", "..."])
    assert isinstance(first, BadOutput)
    assert first.kind == "invalid_vector"
    assert np.linalg.norm(second.value) == pytest.approx(1, abs=1e-6)
    assert isinstance(third, BadOutput)


def test_a_batch_without_any_word_is_all_bad_output():
    assert [reply.kind for reply in embed(["!!!", "\N{ROCKET}"])] == ["invalid_vector"] * 2


def test_words_are_counted_and_cost_nothing():
    first, second = embed(["three words here", "two words"])
    assert (first.usage.input, first.usage.requests) == (3, 1)
    assert (second.usage.input, second.usage.requests) == (2, 0)
    assert first.usage.output == 0
    assert first.usage.cost(local.MODELS[0].price) == 0


def test_the_body_is_the_same_for_the_same_request_and_names_the_recipe():
    request = Request("embed", "text", {"dimensions": 64})
    assert LEXICAL.codec.encode((request,), LEXICAL) == LEXICAL.codec.encode((request,), LEXICAL)
    assert local.RECIPES["lexical"].encode() in LEXICAL.codec.encode((request,), LEXICAL)


def test_a_question_and_a_document_are_the_same_request():
    plain, question = Request("embed", "text"), Request("embed", "text", {"input_type": "query"})
    assert LEXICAL.codec.encode((plain,), LEXICAL) == LEXICAL.codec.encode((question,), LEXICAL)


def test_spelling_brings_forms_of_a_word_together_and_keeps_others_apart():
    compress, compression, bicycle = vectors(["compress", "compression", "bicycle"])
    assert compress @ compression > 0.3
    assert abs(compress @ bicycle) < 0.2


def test_the_question_for_command_line_arguments_finds_argparse_or_getopt_by_vectors(docs, matrix):
    (question,) = vectors(["parse command line arguments"])
    assert {"argparse", "getopt"} & set(first_modules(docs, matrix @ question, 3))


QUESTIONS = {
    "read a csv file": {"csv"},
    "compress data with gzip": {"gzip", "zlib", "bz2"},
    "temporary directory": {"tempfile"},
    "regular expression search and replace": {"re"},
    "send an email": {"smtplib", "email"},
    "random choice from a list": {"random", "secrets"},
}


def test_most_questions_have_a_sensible_module_among_the_first_five(docs, matrix):
    asked = vectors(list(QUESTIONS))
    pairs = zip(asked, QUESTIONS.values(), strict=True)
    found = [bool(sensible & set(first_modules(docs, matrix @ question, 5))) for question, sensible in pairs]
    assert sum(found) >= 5


# ------------------------------------------------------------------------------------------------------------------ bm25


def test_bm25_puts_the_document_that_has_the_words_first():
    documents = ["the battery lasts long", "a battery problem: the battery died", "nothing to see", "delivery was late"]
    made = scores("battery problems", documents)
    assert made.dtype == np.float64
    assert list(np.argsort(-made)[:2]) == [1, 0]
    assert list(made[2:]) == [0, 0]


def test_scores_stand_in_the_order_of_the_documents():
    documents = ["alpha beta", "beta gamma", "gamma delta", ""]
    forward, backward = scores("gamma", documents), scores("gamma", documents[::-1])
    assert list(forward) == list(backward[::-1])
    assert list(forward > 0) == [False, True, True, False]


@pytest.mark.parametrize("query", ["zebra", "!!!"])
def test_a_query_that_no_document_answers_scores_zero(query):
    assert list(scores(query, ["one document", "another", "..."])) == [0, 0, 0]


def test_stop_words_of_a_question_count_only_where_there_is_nothing_else():
    documents = ["the of and", "parser"]
    assert list(scores("the parser", documents) > 0) == [False, True]
    assert list(scores("the", documents) > 0) == [True, False]


def test_bm25_agrees_with_an_index_of_every_word():
    bm25s = pytest.importorskip("bm25s")
    documents = ["read one csv row", "write one csv row twice", "parse xml", "csv csv csv"]
    whole = bm25s.BM25(method="lucene", dtype="float64")
    whole.index([local.words(document) for document in documents], show_progress=False)
    np.testing.assert_allclose(scores("csv row", documents), whole.get_scores(["csv", "row"]))


def test_bm25_prints_nothing(capfd):
    scores("battery", [f"document {number} about a battery" for number in range(500)])
    assert capfd.readouterr() == ("", "")


def test_a_rerank_is_one_request_for_all_documents():
    assert local.RERANK_AT_ONCE is None
    assert BM25.codec.batch_size(BM25) == (1, None)
    (reply,) = replies(BM25, [Request("rerank", RerankPayload("one two", ("three four five", "six")))])
    assert (reply.usage.input, reply.usage.output, reply.usage.requests) == (6, 0, 1)


def test_the_question_for_command_line_arguments_finds_argparse_or_getopt_by_bm25(docs):
    marks = scores("parse command line arguments", docs["text"])
    assert {"argparse", "getopt"} & set(first_modules(docs, marks, 3))


def test_a_model_that_does_the_other_thing_is_named():
    with pytest.raises(Unsupported, match="local/lexical embeds"):
        embed(["text"], target("bm25", "embed"))
    with pytest.raises(Unsupported, match="local/bm25 reranks"):
        scores("text", ["text"], target("lexical", "rerank"))


# ----------------------------------------------------------------------------------------- models that the user names


WORDS = ["[UNK]", "cat", "dog", "car", "truck"]
TABLE = np.array([[0, 0, 0], [1, 0.1, 0], [0.9, 0.2, 0], [0, 0.1, 1], [0, 0.2, 0.9]], dtype=np.float32)


def save_model(directory):
    model2vec = pytest.importorskip("model2vec")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    model2vec.StaticModel(vectors=TABLE, tokenizer=tokenizer, normalize=True).save_pretrained(str(directory))


@pytest.fixture
def tiny(tmp_path):
    directory = tmp_path / "tiny-model"
    save_model(directory)
    return target(directory, "embed")


def test_a_model2vec_model_of_a_directory_embeds(tiny):
    made = vectors(["cat", "dog", "truck", "cat dog"], tiny)
    assert made.dtype == np.float32
    assert made.shape == (4, 3)
    np.testing.assert_allclose(made[0], TABLE[1] / np.linalg.norm(TABLE[1]), atol=1e-6)
    assert made[0] @ made[1] > made[0] @ made[2]


def test_a_text_that_the_model_knows_no_word_of_is_a_bad_output(tiny):
    known, unknown = embed(["cat", "zebra"], tiny)
    assert known.value.any()
    assert unknown.kind == "invalid_vector"


def test_a_models_vectors_are_cut_to_the_wanted_dimensions(tiny):
    made = vectors(["cat"], tiny, dimensions=2)
    assert made.shape == (1, 2)
    assert np.linalg.norm(made) == pytest.approx(1, abs=1e-6)
    with pytest.raises(Unsupported, match="more than the 3"):
        embed(["cat"], tiny, dimensions=4)


def test_a_model_is_loaded_once_however_many_threads_ask_for_it(tiny, monkeypatch):
    import model2vec

    load, loads = model2vec.StaticModel.from_pretrained, []

    def counted(path):
        loads.append(path)
        return load(path)

    monkeypatch.setattr(model2vec.StaticModel, "from_pretrained", counted)
    threads = [threading.Thread(target=vectors, args=(["cat"], tiny)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [tiny.model.name]


def test_a_relative_name_is_the_same_model_as_the_whole_path(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = target("tiny-model", "embed")
    request = Request("embed", "cat")
    assert relative.codec.encode((request,), relative) == tiny.codec.encode((request,), tiny)
    assert vectors(["cat"], relative).tobytes() == vectors(["cat"], tiny).tobytes()


def test_two_models_of_one_name_are_two_for_the_store(tmp_path):
    bodies = []
    for name, size in (("one", 3), ("two", 2)):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "config.json").write_text("x" * size)
        at = target(directory, "embed")
        bodies.append(at.codec.encode((Request("embed", "cat"),), at).replace(name.encode(), b""))
    assert bodies[0] != bodies[1]


def test_a_static_model_does_not_rerank(tiny):
    with pytest.raises(Unsupported, match="cross-encoder"):
        scores("cat", ["dog"], target(tiny.model.name, "rerank"))


class FakeModel:
    """Stands in for sentence-transformers, which brings torch."""

    def __init__(self, place):
        self.place = place

    def encode(self, texts, show_progress_bar):
        assert not show_progress_bar
        return np.array([[len(text), 1.0] for text in texts])

    def encode_query(self, texts, show_progress_bar):
        return -self.encode(texts, show_progress_bar)

    def predict(self, pairs, show_progress_bar):
        assert not show_progress_bar
        return np.array([len(set(query) & set(document)) for query, document in pairs], dtype=np.float32)


@pytest.fixture
def transformers(monkeypatch, tmp_path):
    module = type(sys)("sentence_transformers")
    module.SentenceTransformer = module.CrossEncoder = FakeModel
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer"}]')
    return tmp_path


def test_another_model_is_embedded_by_sentence_transformers(transformers):
    at = target(transformers, "embed")
    assert vectors(["abc"], at).tolist() == [[3, 1]]
    assert vectors(["abc"], at, input_type="query").tolist() == [[-3, -1]]


def test_a_cross_encoder_reranks(transformers):
    made = scores("abc", ["xyz", "abx"], target(transformers, "rerank"))
    assert (made.dtype, made.tolist()) == (np.float64, [0, 2])


def test_a_model_that_cannot_be_loaded_is_an_unknown_model(transformers, monkeypatch):
    def broken(place):
        raise OSError("no weights here")

    monkeypatch.setattr(sys.modules["sentence_transformers"], "SentenceTransformer", broken)
    with pytest.raises(UnknownModel, match="could not be loaded: OSError: no weights here"):
        embed(["cat"], target(transformers, "embed"))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_a_directory_that_is_not_there_is_an_unknown_model(name):
    with pytest.raises(UnknownModel, match="there is no directory"):
        embed(["cat"], target(name, "embed"))


# -------------------------------------------------------------------------------------------------------- missing extras


def hide(monkeypatch, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)


def test_without_scikit_learn_the_error_holds_the_line_that_installs_it(monkeypatch):
    hide(monkeypatch, "sklearn")
    with pytest.raises(MissingExtra, match=r"pip install 'llmkit\[local\]'"):
        embed(["text"])


def test_without_bm25s_the_error_holds_the_line_that_installs_it(monkeypatch):
    hide(monkeypatch, "bm25s")
    with pytest.raises(MissingExtra, match=r"pip install 'llmkit\[local\]'"):
        scores("text", ["text"])


def test_without_any_model_library_both_are_named(monkeypatch, tmp_path):
    hide(monkeypatch, "model2vec")
    hide(monkeypatch, "sentence_transformers")
    with pytest.raises(MissingExtra, match=r"pip install model2vec .*pip install sentence-transformers"):
        embed(["text"], target(tmp_path, "embed"))
    with pytest.raises(MissingExtra, match="pip install sentence-transformers"):
        scores("text", ["text"], target(tmp_path, "rerank"))


def test_importing_the_provider_imports_none_of_the_libraries():
    heavy = {"sklearn", "scipy", "bm25s", "model2vec", "torch"}
    program = f"import sys, llmkit.providers.local; print(sorted({heavy!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_it_needs_no_connection_and_computes_off_the_loop():
    assert ADAPTER.connect is None
    assert ADAPTER.blocking
    assert ADAPTER.read_limits({}) is None
    assert isinstance(ADAPTER.classify_error(500, {}, b""), ServerFault)
