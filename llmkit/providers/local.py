"""Models that run in this process: word matching without any weights, and real models from a directory or a hub.

``local/lexical`` (embed) and ``local/bm25`` (rerank) need no key, no network and no download. They are *no neural networks*: they
match words and spelling, not meaning. "car" finds "cars" and "carpool", and never "automobile". They make search work on any
machine, and they are the baseline that a real model has to beat.

``local/<directory or hub id>`` runs a model that the user names, through model2vec or sentence-transformers, whichever of them is
installed. A hub id is looked up, and downloaded by that library, only because the user named it.
"""

from __future__ import annotations

import json
import os
import re
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ..adapter import Adapter, Codec, Target, to_json
from ..errors import BadOutput, InvalidRequest, LLMError, MissingExtra, ServerFault, UnknownModel, Unsupported, one_line
from ..types import Limits, Model, Price, Provider, Reply, Request, Usage

__all__ = ["MODELS", "PROVIDER", "RERANK_AT_ONCE", "adapter", "lexical_vectors", "words"]

DIMENSIONS = 512
FEWEST_DIMENSIONS, MOST_DIMENSIONS = 16, 65_536

#: Documents in one rerank request, ``None`` for all: how rare a word is depends on the set, so BM25 scores of two sets do not
#: compare with one another.
RERANK_AT_ONCE: int | None = None

PROVIDER = Provider(name="local", base_url="local:", protocol="local", key_optional=True, extra="local")

_FREE = Price(0.0, 0.0, 0.0)
MODELS = (
    Model("local", "lexical", operations=("embed",), dimensions=DIMENSIONS, price=_FREE),
    Model("local", "bm25", operations=("rerank",), price=_FREE),
)

#: Part of what a stored answer is found by. Raised with every change that gives other numbers for the same text.
RECIPES = {"lexical": "lexical 1", "bm25": "bm25 1"}


# ------------------------------------------------------------------------------------------------------------------ words

_RUN = re.compile(r"\w{1,64}")  # bounded: a megabyte of base64 is many words, not one with ten million n-grams
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]+)")

#: Own lists and no library's: vectors must not change with a version of it.
_STOP_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but by can could
    did do does doing down during each for from further had has have having he her here hers him his how i if in into is it its
    itself just may me might more most must my no nor not now of off on once only or other our out over own same she should so
    some such than that the their theirs them then there these they this those through to too under until up very was we were
    what when where whether which while who whom why will with would you your
    """.split()
)

#: Common enough in documentation to say little of what a text is about, and not so empty as a stop word.
_COMMON_WORDS = frozenset(
    """
    add added another attribute attributes available based bool call called calls case change class code contain contained
    contains create created current data default define defined different done end error example exception exist exists false
    file files first following follow form format function functions get gets give given gives handle import include including
    information input instance instead int integer item items key kwargs last like list look make makes many method methods
    module name names need new none note number numbers object objects one optional order otherwise output parameter parameters
    part pass passed path possible provide provided provides put raise raised raises read result return returned returning
    returns run second see self set sets several show simple size specified start str string strings support supported supports
    take takes text time true try tuple two type types use used useful user uses using usually valid value values want way
    within without work works write
    """.split()
)

_STOP_WEIGHT, _COMMON_WEIGHT = 0.1, 0.5


def words(text: str) -> list[str]:
    """The words of a text as code readers see them, lower-case.

    ``parse_args``, ``ArgumentParser`` and ``os.path`` give their parts too; Chinese and Japanese, which put no spaces, give pairs
    of characters.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of str
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    found: list[str] = []
    for run in _RUN.findall(text):
        found.extend(_parts(run))
    return found


@lru_cache(maxsize=1 << 16)
def _parts(run: str) -> tuple[str, ...]:
    if run.isascii():
        parts = [part.lower() for part in _HUMP.findall(run)]
    else:
        parts = [part for piece in run.lower().split("_") for part in _UNSPACED.split(piece) if part]
        parts = [pair for part in parts for pair in _pairs(part)]
    if len(parts) > 1 and not _UNSPACED.search(run):
        parts.append(run.lower().replace("_", ""))
    return tuple(parts)


def _pairs(part: str) -> list[str]:
    if len(part) < 3 or not _UNSPACED.match(part):
        return [part]
    return [part[i : i + 2] for i in range(len(part) - 1)]


@lru_cache(maxsize=1 << 16)
def _singular(word: str) -> str:
    # The plural is all that is taken off: a full stemmer is wrong about names, and the character n-grams see the other endings.
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    return word[:-3] + "y" if word.endswith("ies") and len(word) > 4 else word[:-1]


# ---------------------------------------------------------------------------------------------------------------- lexical

_BUCKETS = 1 << 22  # so many that no two features of one text are likely to meet; nothing of this size is ever made
_SPREAD = 4  # dimensions that a feature touches
_SPELLING, _WORD, _PAIR = 10, 11, 12  # the seeds of three independent projections
_SPELLING_WEIGHT, _PAIR_WEIGHT = 1.3, 0.7  # beside 1 for the word itself
_SUBLINEAR = 0.65  # the power of a count: ten times the word is not ten times the subject
_LEAD = 30  # words: a text says first what it is about, so later ones count less and less


def lexical_vectors(texts: Sequence[str], dimensions: int = DIMENSIONS) -> npt.NDArray[np.float32]:
    """Vectors whose cosine says how much two texts share of words, pairs of words and spelling.

    No neural network and no training: the features are hashed (scikit-learn's ``HashingVectorizer``: words, pairs of neighbouring
    words, and the 3 to 5 character n-grams within words), weighted by less than their count, the first words of a text more than
    later ones and stop words hardly at all, and projected by a fixed random matrix that is computed, entry by entry, from the
    feature's number. A text's vector depends on nothing but the text: not on the batch, the process or what was embedded before.

    Parameters
    ----------
    texts : sequence of str
    dimensions : int
        Length of a vector. The error of a cosine shrinks with its square root.

    Returns
    -------
    ndarray of float32, (len(texts), dimensions)
        Rows of length 1; a row of zeros for a text without any word.
    """
    try:
        from scipy.sparse import csr_array, diags_array  # type: ignore[import-untyped]
        from sklearn.feature_extraction.text import HashingVectorizer
    except ImportError:
        raise _missing("local/lexical", "scikit-learn") from None

    spoken = [words(text) for text in texts]
    # Sorted, so that the sums of a row are taken in the same order whatever else is in the batch: the same text, the same bits.
    vocabulary = sorted({word for found in spoken for word in found})
    if not vocabulary:
        return np.zeros((len(texts), dimensions), dtype=np.float32)
    place = {word: number for number, word in enumerate(vocabulary)}

    spelling = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), lowercase=False, norm=None, n_features=_BUCKETS)
    given = HashingVectorizer(analyzer=_as_given, norm=None, n_features=_BUCKETS)

    # A text mostly repeats the words of its neighbours: n-grams are cut and projected once for each different word of the batch.
    ngrams = spelling.transform(vocabulary)
    of_word = np.repeat(np.arange(len(vocabulary)), np.diff(ngrams.indptr))
    lengths = np.sqrt(np.bincount(of_word, ngrams.data**2, minlength=len(vocabulary)))
    ngrams.data *= _SPELLING_WEIGHT / lengths[of_word]
    whole = given.transform([[_singular(word)] for word in vocabulary])
    each = diags_array([_weight(word) for word in vocabulary]) @ (
        _projected(ngrams, dimensions, _SPELLING) + _projected(whole, dimensions, _WORD)
    )

    counts: list[float] = []
    columns: list[int] = []
    ends = [0]
    pairs: list[list[str]] = []
    for found in spoken:
        count: dict[int, float] = {}
        for position, word in enumerate(found):
            at = place[word]
            count[at] = count.get(at, 0.0) + (1.0 if position < _LEAD else _LEAD / position)
        for at in sorted(count):
            columns.append(at)
            counts.append(count[at])
        ends.append(len(columns))
        telling = [_singular(word) for word in found if word not in _STOP_WORDS]
        pairs.append([f"{first} {second}" for first, second in pairwise(telling)])
    said = csr_array((np.array(counts, dtype=np.float64) ** _SUBLINEAR, columns, ends), shape=(len(texts), len(vocabulary)))
    phrases = given.transform(pairs)
    phrases.data = np.sign(phrases.data) * np.abs(phrases.data) ** _SUBLINEAR * _PAIR_WEIGHT
    vectors = (said @ each + _projected(phrases, dimensions, _PAIR)).toarray()
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    made: npt.NDArray[np.float32] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0).astype(np.float32)
    return made


def _as_given(features: list[str]) -> list[str]:
    return features


def _weight(word: str) -> float:
    if word in _STOP_WORDS or (len(word) == 1 and word.isascii()):
        return _STOP_WEIGHT
    return _COMMON_WEIGHT if word in _COMMON_WORDS else 1.0


def _projected(features: Any, dimensions: int, seed: int) -> Any:
    """Sparse rows of hashed features times a sparse random matrix of which only the rows in use are computed."""
    from scipy.sparse import csr_array

    used, renumbered = np.unique(features.indices, return_inverse=True)
    nth = np.arange(_SPREAD, dtype=np.uint64)
    drawn = _mixed(used.astype(np.uint64)[:, None] * np.uint64(_SPREAD) + nth + np.uint64(seed << 40))
    # Each of a feature's dimensions lies in a stretch of its own, so no two of them can cancel out.
    stretch = dimensions // _SPREAD
    at = (drawn % np.uint64(stretch)).astype(np.int64) + (nth * np.uint64(stretch)).astype(np.int64)
    signs = np.where(drawn >> np.uint64(63) != 0, 0.5, -0.5)  # 1 / sqrt(_SPREAD)
    rows = np.arange(0, len(used) * _SPREAD + 1, _SPREAD)
    matrix = csr_array((signs.ravel(), at.ravel(), rows), shape=(len(used), dimensions))
    return csr_array((features.data, renumbered.ravel(), features.indptr), shape=(features.shape[0], len(used))) @ matrix


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64: integers only, so every platform draws the same."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


# ------------------------------------------------------------------------------------------------------------------- bm25


def _bm25_scores(query: str, documents: Sequence[str]) -> npt.NDArray[np.float64]:
    try:
        import bm25s
    except ImportError:
        raise _missing("local/bm25", "bm25s") from None

    asked = list(dict.fromkeys(_singular(word) for word in words(query)))
    asked = [word for word in asked if word not in _STOP_WORDS] or asked
    # Words that were not asked for count in a document's length and in nothing else: one number stands for all of them.
    numbers = {word: number for number, word in enumerate(asked, 1)}
    numbered = [[numbers.get(_singular(word), 0) for word in words(document)] for document in documents]
    if not any(any(found) for found in numbered):
        return np.zeros(len(documents), dtype=np.float64)
    index = bm25s.BM25(method="lucene", dtype="float64", backend="numpy")
    index.index((numbered, {"": 0, **numbers}), show_progress=False)
    return np.asarray(index.get_scores(asked), dtype=np.float64)


# -------------------------------------------------------------------------------------------- models that the user names

_lock = threading.Lock()
_loaded: dict[tuple[str, str], tuple[Any, threading.Lock]] = {}
_stamps: dict[str, str] = {}


def _directory(name: str) -> str | None:
    path = os.path.abspath(os.path.expanduser(name))
    return path if os.path.isdir(path) else None


def _stamp(directory: str) -> str:
    """Names, sizes and times of a model's files: a model that was trained again is another one for the store.

    Taken once per process, as the model is loaded once per process.
    """
    if directory not in _stamps:
        seen = []
        for folder, _, names in sorted(os.walk(directory)):
            for name in sorted(names):
                try:
                    facts = os.stat(os.path.join(folder, name))
                except OSError:  # a link to nowhere is no part of a model
                    continue
                seen.append(f"{os.path.relpath(folder, directory)}/{name}:{facts.st_size}:{facts.st_mtime_ns}")
        _stamps[directory] = " ".join(seen)
    return _stamps[directory]


def _model(kind: str, name: str, load: Callable[[str], Any]) -> tuple[Any, threading.Lock]:
    """The loaded model and the lock under which it computes: one batch at a time, as these libraries use all cores for one."""
    directory = _directory(name)
    if directory is None and (name.startswith((".", "~", os.sep)) or "\\" in name or name.count("/") != 1):
        raise UnknownModel(
            f"there is no directory {name!r}, and a hub's models are named owner/name: write local/<directory> or local/<owner>/<name>"
        )
    place = directory or name
    with _lock:
        if (kind, place) not in _loaded:
            try:
                _loaded[kind, place] = load(place), threading.Lock()
            except LLMError:
                raise
            except Exception as error:  # whatever the library or the hub says, the model cannot be had
                raise UnknownModel(f"the model {name!r} could not be loaded: {type(error).__name__}: {one_line(error)}") from error
        return _loaded[kind, place]


def _load_embedder(place: str) -> Any:
    try:
        import model2vec
    except ImportError:
        model2vec = None
    if model2vec is not None and _is_model2vec(place):
        return model2vec.StaticModel.from_pretrained(place)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingExtra(
            f"local/{place} needs a library that runs it: pip install model2vec (small, for static models), "
            "or pip install sentence-transformers (any embedding model; brings torch)"
        ) from None
    return SentenceTransformer(place)


def _load_reranker(place: str) -> Any:
    try:
        from sentence_transformers import CrossEncoder
    except ImportError:
        raise MissingExtra(
            f"local/{place} reranks with a cross-encoder: pip install sentence-transformers (brings torch). local/bm25 needs no model"
        ) from None
    return CrossEncoder(place)


def _is_model2vec(place: str) -> bool:
    config = _facts(place, "config.json")
    said = config if isinstance(config, dict) else {}
    if said.get("model_type") == "model2vec" or "StaticModel" in (said.get("architectures") or ()):
        return True
    # A model that was saved without a type of its own still says which module it is.
    modules = _facts(place, "modules.json")
    kinds = [str(module.get("type")) for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
    return any("StaticEmbedding" in kind for kind in kinds)


def _facts(place: str, name: str) -> Any:
    """A small JSON file of the model, ``None`` where it has none. What it says decides which library loads the large ones."""
    try:
        if os.path.isdir(place):
            path = os.path.join(place, name)
        else:
            from huggingface_hub import hf_hub_download  # model2vec depends on it

            path = hf_hub_download(place, name)
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except Exception:  # no such file, no such model, no network: loading it says so better
        return None


def _model_vectors(name: str, texts: list[str], dimensions: int | None, input_type: str | None) -> npt.NDArray[np.float32]:
    model, lock = _model("embed", name, _load_embedder)
    encode = model.encode
    if input_type in ("query", "search_query"):  # models that want another prefix for questions
        encode = getattr(model, "encode_query", encode)
    elif input_type in ("document", "search_document"):
        encode = getattr(model, "encode_document", encode)
    with lock:
        try:
            vectors = np.asarray(encode(texts, show_progress_bar=False), dtype=np.float32)
        except Exception as error:  # a text may be too much for a model: halved, the fault is found
            raise InvalidRequest(f"the model failed on this text ({type(error).__name__})") from error
    if dimensions is None:
        return vectors
    if dimensions > vectors.shape[1]:
        raise Unsupported(f"dimensions={dimensions} is more than the {vectors.shape[1]} that local/{name} has")
    vectors = vectors[:, :dimensions]
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    cut: npt.NDArray[np.float32] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return cut


def _model_scores(name: str, query: str, documents: list[str]) -> npt.NDArray[np.float64]:
    directory = _directory(name)
    if directory is not None and _is_model2vec(directory):
        raise Unsupported(f"local/{name} embeds and does not rerank; name a cross-encoder, or local/bm25, which needs no model")
    model, lock = _model("rerank", name, _load_reranker)
    with lock:
        try:
            scores = model.predict([(query, document) for document in documents], show_progress_bar=False)
        except Exception as error:
            raise InvalidRequest(f"the model failed on these documents ({type(error).__name__})") from error
    return np.asarray(scores, dtype=np.float64)


def _missing(model: str, package: str) -> MissingExtra:
    return MissingExtra(f"{model} needs {package}: pip install 'llmkit[local]'")


# --------------------------------------------------------------------------------------------------------------- the wire


def _head(target: Target) -> dict[str, Any]:
    name = target.model.name
    if name in RECIPES:
        return {"model": name, "recipe": RECIPES[name]}
    directory = _directory(name)
    return {"model": name} if directory is None else {"model": directory, "files": _stamp(directory)}


def _embed_body(requests: Sequence[Request], target: Target) -> bytes:
    options = dict(requests[0].options)
    if target.model.name == "lexical":
        options.pop("input_type", None)  # a question and a document are the same words
    return to_json({**_head(target), "input": [request.payload for request in requests], **options})


def _embed_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    vectors = body["vectors"]
    if vectors.ndim != 2 or len(vectors) != len(requests):
        raise ServerFault("the model gave another number of vectors than there are texts", kind="bad_response")
    usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    replies: list[Reply | LLMError] = []
    for number, (request, vector, good) in enumerate(zip(requests, vectors, usable.tolist(), strict=True)):
        usage = Usage(input=len(request.payload.split()), requests=1 if number == 0 else 0)
        if good:
            replies.append(Reply(value=vector, usage=usage, model=body["model"]))
        else:
            reason = "this text has no vector: it holds no word that the model knows"
            replies.append(BadOutput(reason, kind="invalid_vector", usage=usage))
    return replies


def _rerank_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    payload = request.payload
    return to_json({**_head(target), "query": payload.query, "documents": list(payload.documents), **request.options})


def _rerank_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    (request,) = requests
    payload, scores = request.payload, body["scores"]
    usage = Usage(input=len(payload.query.split()) + sum(len(document.split()) for document in payload.documents), requests=1)
    if scores.shape != (len(payload.documents),):
        return [BadOutput("the model gives no single score for a document: it is no reranker", kind="invalid_scores", usage=usage)]
    if len(scores) and np.isnan(scores).all():
        return [BadOutput("no document got a score", kind="invalid_scores", usage=usage)]
    return [Reply(value=scores, usage=usage, model=body["model"])]


def answer(body: bytes, target: Target) -> dict[str, Any]:
    """Vectors or scores as arrays; they never become JSON."""
    asked = orjson.loads(body)
    name = target.model.name
    for known in ("model", "recipe", "files"):
        asked.pop(known, None)
    if "documents" in asked:
        query, documents = asked.pop("query"), asked.pop("documents")
        _refuse(asked, target)
        if name == "lexical":
            raise Unsupported("local/lexical embeds and does not rerank; local/bm25 reranks")
        scores = _bm25_scores(query, documents) if name == "bm25" else _model_scores(name, query, documents)
        return {"model": name, "scores": scores}
    if name == "bm25":
        raise Unsupported("local/bm25 reranks and does not embed; local/lexical embeds")
    texts, dimensions, input_type = asked.pop("input"), asked.pop("dimensions", None), asked.pop("input_type", None)
    _refuse(asked, target)
    if name != "lexical":
        return {"model": name, "vectors": _model_vectors(name, texts, _checked(dimensions, 1), input_type)}
    size = _checked(dimensions, FEWEST_DIMENSIONS)
    return {"model": name, "vectors": lexical_vectors(texts, DIMENSIONS if size is None else size)}


def _checked(dimensions: Any, fewest: int) -> int | None:
    if dimensions is None:
        return None
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or not fewest <= dimensions <= MOST_DIMENSIONS:
        raise Unsupported(f"dimensions={dimensions!r}: a whole number from {fewest} to {MOST_DIMENSIONS:,} is meant")
    return dimensions


def _refuse(options: Mapping[str, Any], target: Target) -> None:
    if options:
        raise Unsupported(f"{target.name} has no option {next(iter(options))!r}")


def _never_refused(status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
    return ServerFault("a model of this process has no HTTP status")


def _no_limits(headers: Mapping[str, str]) -> Limits | None:
    return None


def adapter() -> Adapter:
    return Adapter(
        name="local",
        codecs={
            # 256 texts share their words, which are looked at once; more of them gain nothing and stop later.
            "embed": Codec("", _embed_body, _embed_replies, lambda target: (256, None)),
            "rerank": Codec("", _rerank_body, _rerank_replies),
        },
        connect=None,
        classify_error=_never_refused,
        read_limits=_no_limits,
        answer=answer,
        blocking=True,
    )
