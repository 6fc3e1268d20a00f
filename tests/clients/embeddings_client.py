"""The openai package's embeddings and the cohere package's ranking, unchanged, against a running
server: python embeddings_client.py BASE_URL API_KEY STORED.json [through]

The server serves all-MiniLM-L6-v2 as `minilm`, and the reference models as `qwen` and `rerank`.
STORED.json holds `texts` and what sentence-transformers makes of them. `through`: they are somebody
else's models, behind pools of these names.
"""
import base64
import json
import struct
import sys

import cohere
import openai
from openai import OpenAI

base_url, key, stored = sys.argv[1], sys.argv[2], sys.argv[3]
THROUGH = sys.argv[4:] == ["through"]
client = OpenAI(base_url=base_url + "/v1", api_key=key, max_retries=0, timeout=120)
with open(stored, encoding="utf-8") as f:
    STORED = json.load(f)
CASES = []


def case(f):
    CASES.append(f)
    return f


def embed(texts, model="minilm", **more):
    return [one.embedding for one in client.embeddings.create(model=model, input=texts, **more).data]


def furthest(a, b):
    assert len(a) == len(b), (len(a), len(b))
    return max(abs(x - y) for x, y in zip(a, b))


@case
def what_sentence_transformers_makes():
    for vector, wanted in zip(embed(STORED["texts"]), STORED["embeddings"]):
        assert furthest(vector, wanted) < 1e-5, furthest(vector, wanted)


@case
def alone_and_together_are_the_same_bits():
    together = embed(STORED["texts"])
    assert together == [embed(text)[0] for text in STORED["texts"]]
    assert together == embed(STORED["texts"][::-1])[::-1]


@case
def base64_is_the_same_numbers():
    raw = client.embeddings.with_raw_response.create(model="minilm", input=STORED["texts"], encoding_format="base64")
    floats = client.embeddings.with_raw_response.create(model="minilm", input=STORED["texts"], encoding_format="float")
    for a, b in zip(json.loads(raw.text)["data"], json.loads(floats.text)["data"]):
        unpacked = struct.unpack("<384f", base64.b64decode(a["embedding"]))
        written = struct.unpack("<384f", struct.pack("<384f", *b["embedding"]))
        assert unpacked == written


@case
def usage_and_shape():
    r = client.embeddings.create(model="minilm", input=["tea", "tea and salt"])
    assert r.object == "list" and r.model == "minilm" and [one.index for one in r.data] == [0, 1]
    assert r.usage.prompt_tokens == r.usage.total_tokens == 3 + 5, r.usage
    ids = client.embeddings.create(model="minilm", input=[[101, 5572, 102]])
    assert ids.data[0].embedding == embed("tea")[0], "ids are taken as they are"


@case
def fewer_dimensions():
    whole, part = embed("tea")[0], embed("tea", dimensions=16)[0]
    length = sum(x * x for x in whole[:16]) ** 0.5
    assert furthest(part, [x / length for x in whole[:16]]) < 1e-6


@case
def prompts():
    plain = embed("where?", model="qwen")[0]
    query = embed("where?", model="qwen", extra_body={"input_type": "query"})[0]
    named = embed("where?", model="qwen", extra_body={"prompt_name": "query"})[0]
    assert query == named and query != plain


@case
def long_texts():
    long = "word " * 300
    try:
        embed(["tea", long])
    except openai.BadRequestError as e:
        assert e.param == "input[1]" and e.code == "context_length_exceeded", e
        assert "256" in e.message and "302" in e.message, e.message
    else:
        raise AssertionError("too long, and not refused")
    cut = embed(long, extra_body={"truncate_prompt_tokens": -1})
    assert cut == embed("word " * 254), "256 tokens, two of them special"


@case
def many_texts():
    texts = [f"{n} crates of oranges" for n in range(500)]
    vectors = embed(texts)
    assert vectors[123] == embed(texts[123])[0]


@case
def wrong_endpoints():
    for call in [
        lambda: client.embeddings.create(model="demo", input="a"),
        lambda: client.embeddings.create(model="rerank", input="a"),
        lambda: client.chat.completions.create(model="minilm", messages=[{"role": "user", "content": "a"}]),
    ]:
        try:
            call()
        except openai.BadRequestError as e:
            assert e.code == "wrong_endpoint" and "it serves /v1/" in e.message, e
        else:
            raise AssertionError("answered")
    if THROUGH:
        return
    tasks = {m.id: m.model_extra["task"] for m in client.models.list()}
    assert tasks == {"demo": "generate", "minilm": "embed", "qwen": "embed", "rerank": "rerank"}, tasks


@case
def ranking():
    documents = ["The harbour woke before the town did.", "tea", "salt"]
    body = {"model": "rerank", "query": "Where do the boats come in?", "documents": documents}
    r = client.post("/rerank", body=body, cast_to=object)
    scores = [one["relevance_score"] for one in r["results"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    body = {"model": "rerank", "text_1": body["query"], "text_2": documents}
    pairs = client.post("/score", body=body, cast_to=object)["data"]
    assert [pairs[one["index"]]["score"] for one in r["results"]] == scores


@case
def ranking_as_cohere_has_it():
    documents = ["tea", "The harbour woke before the town did.", "salt " * 700]
    query = "Where do the boats come in?"
    two = cohere.ClientV2(api_key=key, base_url=base_url)
    r = two.rerank(model="rerank", query=query, documents=documents)
    order = [one.index for one in r.results]
    scores = [one.relevance_score for one in r.results]
    assert sorted(order) == [0, 1, 2] and scores == sorted(scores, reverse=True), r
    assert r.id and r.meta.api_version.version == "2" and r.meta.billed_units.search_units == 1, r
    best = two.rerank(model="rerank", query=query, documents=documents, top_n=1, max_tokens_per_doc=4000)
    assert [one.index for one in best.results] == order[:1], best
    cut = two.rerank(model="rerank", query=query, documents=["salt " * 700, "salt " * 9], max_tokens_per_doc=9)
    assert cut.results[0].relevance_score == cut.results[1].relevance_score, cut
    one = cohere.Client(api_key=key, base_url=base_url)
    old = one.rerank(model="rerank", query=query, documents=documents[:2], return_documents=True)
    assert [x.document.text for x in old.results] == [documents[x.index] for x in old.results], old
    assert [x.relevance_score for x in old.results] == [s for i, s in zip(order, scores) if i < 2], old
    options = {"max_retries": 0}
    stranger = cohere.ClientV2(api_key="wrong", base_url=base_url)
    for error, ask in [
        (cohere.NotFoundError, lambda: two.rerank(model="nobody", query=query, documents=["a"], request_options=options)),
        (cohere.BadRequestError, lambda: two.rerank(model="rerank", query=query, documents=[], request_options=options)),
        (cohere.BadRequestError, lambda: two.rerank(model="minilm", query=query, documents=["a"], request_options=options)),
        (cohere.UnauthorizedError, lambda: stranger.rerank(model="rerank", query=query, documents=["a"], request_options=options)),
    ]:
        try:
            ask()
        except error as e:
            assert e.body["message"] and e.body["id"], e
        else:
            raise AssertionError("answered")


for f in CASES:
    f()
    print("ok", f.__name__, flush=True)
print(f"{len(CASES)} passed, 0 failed")
