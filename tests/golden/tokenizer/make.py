"""Makes the goldens of this folder with the official SentencePiece package.

    pip install sentencepiece==0.2.3 protobuf brotli
    python make.py

Reads   alice_1024.model.packed  what `sixpack tokenizer train corpus.txt --vocab-size 1024` makes, packed
        corpus.txt                     Alice's Adventures in Wonderland (Lewis Carroll, 1865, public domain), the first
                                       60 KB, and three times a few lines in other scripts
        ../../../formats/assets/nmt_nfkc.charsmap.br
Writes  strings.jsonl.br               [text, ids, text decoded from ids] a line
        ids.jsonl.br                   [ids, text decoded from them] a line, for ids no text would give
        trained.model.packed           the model that the official trainer makes of corpus.txt's lines, 600 pieces,
                                       with the character map above and the fields that our trainer writes
        trained.jsonl.br               as strings.jsonl.br, by that model
        variants.jsonl.br              small models with other options: [name, model in base 64, rows of strings.jsonl.br]

`unpack` and `pack` follow the layout in formats/src/tokenizer/pack.rs and were written from it.
"""
import base64
import json
import pathlib
import random
import struct
import tempfile
import unicodedata

import brotli
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as proto

HERE = pathlib.Path(__file__).parent
CHARSMAP = brotli.decompress((HERE / "../../../formats/assets/nmt_nfkc.charsmap.br").read_bytes())
SPACE = "▁".encode()


def record(text, score, kind):
    inner = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", score)
    inner += b"" if kind is None else bytes([0x18, kind])
    return b"\x0a" + bytes([len(inner)]) + inner


def unpack(packed):
    body = brotli.decompress(packed[4:])
    at, count = struct.unpack_from("<II", body)
    *lines, rest = body[8:].split(b"\n", count)
    model, next_byte, merges = b"", 0, 0
    for line in lines:
        if line == b"\x06":
            model += record(b"<0x%02X>" % next_byte, 0.0, 6)
            next_byte += 1
        elif line[:1] == b"\x02":
            model += record(line[2:], 0.0, line[1])
        else:
            model += record(line[1:] if line[:1] == b"\x01" else SPACE + line, -float(merges), None)
            merges += 1
    model += rest
    return model if at == 2**32 - 1 else model[:at] + CHARSMAP + model[at:]


def pack(model):
    """Enough of a packer for a model of the usual kind."""
    at = model.index(CHARSMAP)
    rest, lines, position = model[:at] + model[at + len(CHARSMAP):], [], 0
    for piece in proto.ModelProto.FromString(model).pieces:
        text = piece.piece.encode()
        if piece.type == 6:
            line = b"\x06"
        elif piece.type != 1:
            line = bytes([2, piece.type]) + text
        else:
            line = text[len(SPACE):] if text.startswith(SPACE) else b"\x01" + text
        lines.append(line)
        position += len(record(text, piece.score, None if piece.type == 1 else piece.type))
    body = struct.pack("<II", at, len(lines)) + b"".join(line + b"\n" for line in lines) + rest[position:]
    return struct.pack("<I", len(model)) + brotli.compress(body, quality=11)


def strings(pieces):
    """What is hard to tokenise, from a fixed seed."""
    rng = random.Random(1)
    by_category = {}
    for point in range(0x110000):
        by_category.setdefault(unicodedata.category(chr(point)), []).append(chr(point))
    del by_category["Cs"]  # surrogates are no text
    for category in sorted(by_category):
        members = by_category[category]
        for c in rng.sample(members, min(20, len(members))):
            yield c
            yield f"a{c}b {c}{c} {c}"
    for point in list(range(0x20)) + list(range(0x7F, 0xA1)):
        yield f"x{chr(point)}y"
        yield f"{chr(point)}x {chr(point)} y{chr(point)}"
    spaces = [" ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u200b", "\u3000", "\u2028", "▁", "\ufeff"]
    for space in spaces:
        for n in (1, 2, 3, 17, 200):
            yield space * n
            yield f"{space * n}left{space * n}right{space * n}"
    for _ in range(100):
        yield "".join(rng.choice(spaces + ["a", "the", "7", "é"]) for _ in range(rng.randrange(1, 20)))
    yield from [
        "", "e\u0301", "\u0301e", "a\u0323\u0307", "a\u0307\u0323", "\u1e9b\u0323", "q\u0307\u0323", "x" + "\u0301" * 50,
        "한국어", "\u1112\u1161\u11ab", "\u1112\u1161", "\u1161\u11ab", "각\u11a8", "가\u11a8", "ㅎㅏㄴ", "ﾊﾝｶｸ ｶﾞ ﾊﾟ", "カ\u3099",
        "Ａｂｃ１２３！？", "①②③ Ⅷ ㍿ ㌔ ﬁ ﬃ ß ẞ ſ", "½ ² x² ₂ ℌ ℝ ™ ℃ Å", "ﷺ ﷲ", "漢字仮名交じり文", "人人生而自由", "𠮷野家", "你好,世界!",
        "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "❤️", "☺︎", "🧑🏾‍🚀 in space", "سلام", "حُروف", "שָׁלוֹם", "नमस्ते", "ก็ดี", "ខ្មែរ", "ታሪክ", "Ελληνικά", "Привет",
        "\u202eabc\u202c", "\u2066x\u2069", "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\U000e0041", "\ue000", "nul\0inside", "\0", "\0\0",
        "<s>", "</s>", "<unk>", "<pad>", "<0x41>", "<0x0A>", "<0xC3><0xA9>", "a<s>b</s>c", "▁the", "the▁cat", "▁▁▁", "a▁", " ▁ ", "\u2585", "\u2047",
        "0", "42", "1234567890" * 10, "3.14159", "1,000,000", "٣٤٥", "１２３", "²³", "12:34:56", "-0.5e-10", "0xDEADBEEF", "v1.2.3",
        "don't can't it's", "“quoted” ‘single’ «guillemets» „low“", "em—dash en–dash hy-phen", "…", "...", "wait…what", "a/b\\c|d", "#!/bin/sh",
        "https://example.com/path?q=1&r=%20#top", "user@example.com", "fn main() {\n\tprintln!(\"{}\", 1);\n}", "<p class=\"x\">&nbsp;</p>",
        "ALL CAPS SENTENCE", "camelCase snake_case SCREAMING_CASE", "a" * 1000, "ab" * 500, "antidisestablishmentarianism" * 20,
        "the" * 100, " the" * 100, "é" * 100, "漢" * 100, "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo" * 10, "A very  long\n\n\nparagraph. " * 40,
    ]
    for text in pieces:
        yield text.replace("▁", " ")
        yield "x" + text
    for _ in range(300):
        yield "".join(rng.choice(pieces) for _ in range(rng.randrange(2, 12))).replace("▁", " ")
    everything = [c for members in by_category.values() for c in members if unicodedata.category(c) not in ("Cn", "Co")]
    for _ in range(200):
        yield "".join(rng.choice(everything) for _ in range(rng.randrange(2, 12)))
    marks, letters = by_category["Mn"], by_category["Ll"] + by_category["Lu"]
    for _ in range(200):
        yield "".join(rng.choice(letters) + rng.choice(["", rng.choice(marks), "\u0301", "\u0308"]) for _ in range(6))
    for _ in range(100):
        yield "".join(chr(rng.choice([rng.randrange(0x1100, 0x1200), rng.randrange(0xAC00, 0xD7A4)])) for _ in range(5))
    for line in (HERE / "corpus.txt").read_text("utf-8").splitlines()[::20]:
        yield line


def id_sequences(size):
    """Ids that no text gives: broken characters, special pieces inside."""
    rng = random.Random(2)
    for _ in range(300):
        kinds = [range(4), range(4, 260), range(260, size)]
        yield [rng.choice(rng.choices(kinds, [1, 6, 4])[0]) for _ in range(rng.randrange(1, 16))]


def train(charsmap):
    with tempfile.TemporaryDirectory() as folder:
        spm.SentencePieceTrainer.train(
            input=str(HERE / "corpus.txt"), model_prefix=f"{folder}/m", model_type="bpe", vocab_size=600,
            character_coverage=0.999, split_digits=True, hard_vocab_limit=False, byte_fallback=True, pad_id=0, bos_id=1,
            eos_id=2, unk_id=3, add_dummy_prefix=False, normalization_rule_name="nmt_nfkc", num_threads=1, minloglevel=2)
        model = proto.ModelProto.FromString(pathlib.Path(f"{folder}/m.model").read_bytes())
    model.normalizer_spec.precompiled_charsmap = charsmap
    for field in ("input", "model_prefix", "num_threads"):
        model.trainer_spec.ClearField(field)
    model.trainer_spec.max_sentencepiece_length = 16
    return model.SerializeToString()


def variants():
    """Models with the options that the reference's models do not use, and text that meets them."""
    rng = random.Random(3)
    lines = (HERE / "corpus.txt").read_text("utf-8").splitlines()
    parts = ["the", " ", "  ", "\t", "Alice", "xy", "<sep>", "foo bar", "漢", "é", "42", "▁", "x", "y", "ing", ".", "a", "<s>", "wonder"]
    texts = ["", " ", "the", " the ", "漢字", "漢 字", "漢漢 漢", "xyxyxy", "<sep><sep>", "foo bar foo  bar"] + lines[100:1000:60]
    texts += ["".join(rng.choice(parts) for _ in range(rng.randrange(2, 14))) for _ in range(60)]
    base = dict(vocab_size=400, byte_fallback=True, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
    yield "dummy prefix, unknown piece", dict(vocab_size=200, unk_surface="[?]"), None, texts
    yield "dummy prefix, spaces kept", dict(base, remove_extra_whitespaces=False), None, texts
    yield "no prefix, spaces kept", dict(base, add_dummy_prefix=False, remove_extra_whitespaces=False), None, texts
    yield "user-defined symbols", dict(base, user_defined_symbols=["<sep>", "xy", "xyxy", "▁wonder", "foo▁bar", "é"]), None, texts
    yield "space as suffix", dict(base, treat_whitespace_as_suffix=True), None, texts
    yield "spaces inside pieces", dict(base, split_by_whitespace=False, allow_whitespace_only_pieces=True, remove_extra_whitespaces=False), None, texts
    yield "control symbols", dict(base, control_symbols=["<sep>", "xy", "漢"]), None, texts

    def unused(model):
        for piece in model.pieces[260:360:3]:
            piece.type = 5
        model.pieces[-3].type = 5

    yield "unused pieces", base, unused, texts

    def bare_spaces(model):
        model.normalizer_spec.escape_whitespaces = False
        for piece in model.pieces:
            if piece.type == 1 and len(piece.piece) > 1:
                piece.piece = piece.piece.replace("▁", " ")

    yield "spaces not escaped", base, bare_spaces, texts


def variant(name, options, change, texts):
    with tempfile.TemporaryDirectory() as folder:
        spm.SentencePieceTrainer.train(
            input=str(HERE / "corpus.txt"), model_prefix=f"{folder}/m", model_type="bpe", hard_vocab_limit=False,
            character_coverage=0.99, normalization_rule_name="identity", num_threads=1, minloglevel=2, **options)
        model = proto.ModelProto.FromString(pathlib.Path(f"{folder}/m.model").read_bytes())
    model.trainer_spec.ClearField("input")
    model.trainer_spec.ClearField("model_prefix")
    if change:
        change(model)
    model = model.SerializeToString()
    tokenizer = spm.SentencePieceProcessor(model_proto=model)
    encoded = [(text, tokenizer.encode(text)) for text in texts]
    return [name, base64.b64encode(model).decode(), [[text, ids, tokenizer.decode(ids)] for text, ids in encoded]]


def write(name, rows):
    text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    (HERE / name).write_bytes(brotli.compress(text.encode(), quality=11))
    print(name, len(rows), "rows", (HERE / name).stat().st_size, "bytes")


def main():
    tokenizer = spm.SentencePieceProcessor(model_proto=unpack((HERE / "alice_1024.model.packed").read_bytes()))
    pieces = [tokenizer.id_to_piece(i) for i in range(260, len(tokenizer))]
    texts = list(dict.fromkeys(strings(pieces)))
    encoded = [(text, tokenizer.encode(text)) for text in texts]
    write("strings.jsonl.br", [[text, ids, tokenizer.decode(ids)] for text, ids in encoded])
    write("ids.jsonl.br", [[ids, tokenizer.decode(ids)] for ids in id_sequences(len(tokenizer))])

    model = train(CHARSMAP)
    packed = pack(model)
    assert unpack(packed) == model
    (HERE / "trained.model.packed").write_bytes(packed)
    tokenizer = spm.SentencePieceProcessor(model_proto=model)
    encoded = [(text, tokenizer.encode(text)) for text in texts[::3]]
    write("trained.jsonl.br", [[text, ids, tokenizer.decode(ids)] for text, ids in encoded])
    write("variants.jsonl.br", [variant(*v) for v in variants()])


if __name__ == "__main__":
    main()
