"""What the official client of OpenAI makes of the server. Usage: openai_client.py BASE_URL"""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=60)

models = client.models.list().data
assert [m.id for m in models] == ["model"], models
assert client.models.retrieve("model").id == "model"

ask = dict(model="model", prompt="pub fn", max_tokens=24, seed=5, temperature=0.8)
whole = client.completions.create(**ask)
choice = whole.choices[0]
assert isinstance(whole, openai.types.Completion) and whole.object == "text_completion"
assert choice.text and choice.finish_reason in ("length", "stop"), whole
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
assert client.completions.create(**ask).choices[0].text == choice.text, "the seed decides"

parts = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
assert "".join(p.choices[0].text for p in parts[:-1]) == choice.text
assert parts[-2].choices[0].finish_reason == choice.finish_reason
assert parts[-1].choices == [] and parts[-1].usage == whole.usage, parts[-1]

more = client.completions.create(**ask, n=2, logprobs=3, extra_body={"top_k": 20, "min_p": 0.01})
assert [c.index for c in more.choices] == [0, 1]
for c in more.choices:
    lists = c.logprobs
    sizes = {len(lists.tokens), len(lists.token_logprobs), len(lists.top_logprobs), len(lists.text_offset)}
    assert len(sizes) == 1, lists
    assert all(x < 0 for x in lists.token_logprobs) and all(3 <= len(t) <= 4 for t in lists.top_logprobs)

scored = client.completions.create(model="model", prompt="let x = 1;", echo=True, max_tokens=0, logprobs=1)
assert scored.choices[0].text == "let x = 1;" and scored.usage.completion_tokens == 0
assert sum(scored.choices[0].logprobs.token_logprobs) < 0

stop = choice.text[3:6]
cut = client.completions.create(**ask, stop=[stop]).choices[0]
assert (cut.text, cut.finish_reason) == (choice.text[: choice.text.index(stop)], "stop"), cut


def refused(kind, status, param, **fields):
    try:
        client.completions.create(**{**ask, **fields})
    except kind as error:
        assert (error.status_code, error.param) == (status, param), error
    else:
        raise AssertionError(f"{fields} was not refused")


refused(openai.BadRequestError, 400, "temperature", temperature=-1)
refused(openai.BadRequestError, 400, "max_tokens", max_tokens=10**9)
refused(openai.NotFoundError, 404, "model", model="gpt-9")

# A stream that is closed early does not keep its place.
stream = client.completions.create(**{**ask, "max_tokens": 4000, "temperature": 0}, stream=True)
next(iter(stream))
stream.close()
print("openai", openai.__version__)
