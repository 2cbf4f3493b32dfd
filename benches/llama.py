"""llama.cpp's part of llama.sh: makes a llama of random weights, times it, and compares the figures."""

import ctypes
import os
import re
import sys
import time

# As in benches/devices.rs.
SECONDS, PROMPT, SHORT, WRITTEN = 1.0, 256, 2, 32

# 13 layers and a gated MLP of 1376: as many weights a token as the record's eleven layers, two of them run twice.
LAYERS, WIDTH, HEADS, KV_HEADS, MLP, VOCABULARY = 13, 512, 8, 4, 1376, 4096


def make(path):
    """Writes the model."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_tokenizer_model("llama")
    tokens = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % i for i in range(256)]
    writer.add_token_list(tokens + [b"t%d" % i for i in range(len(tokens), VOCABULARY)])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - len(tokens)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    random, kind, weights = np.random.default_rng(0), gguf.GGMLQuantizationType.Q8_0, 0

    def matrix(name, rows, cols):
        nonlocal weights
        weights += rows * cols
        values = (random.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float32)
        writer.add_tensor(name + ".weight", gguf.quants.quantize(values, kind), raw_dtype=kind)

    def ones(name):
        writer.add_tensor(name + ".weight", np.ones(WIDTH, np.float32))

    kv = KV_HEADS * WIDTH // HEADS
    matrix("token_embd", VOCABULARY, WIDTH)
    ones("output_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        ones(block + "attn_norm")
        ones(block + "ffn_norm")
        for name, rows, cols in [
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", kv, WIDTH),
            ("attn_v", kv, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", MLP, WIDTH),
            ("ffn_up", MLP, WIDTH),
            ("ffn_down", WIDTH, MLP),
        ]:
            matrix(block + name, rows, cols)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{path}: {weights} weights a token")


def time_it(path):
    """Prints the best prompt and the best token of a second, as benches/devices.rs does."""
    import llama_cpp as llama

    quiet = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    options = llama.llama_model_default_params()
    options.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(path.encode(), options)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for threads in [1, cores][: min(cores, 2)]:
        options = llama.llama_context_default_params()
        options.n_ctx = options.n_batch = 2048
        options.n_ubatch = 512
        options.n_threads = options.n_threads_batch = threads
        context = llama.llama_init_from_model(model, options)

        def seconds(ids):
            """To read these tokens at once, with the last one's logits."""
            # The batch only points to them.
            tokens = (llama.llama_token * len(ids))(*ids)
            batch = llama.llama_batch_get_one(tokens, len(ids))
            start = time.perf_counter()
            if llama.llama_decode(context, batch):
                sys.exit("llama.cpp failed")
            llama.llama_synchronize(context)
            llama.llama_get_logits(context)
            return time.perf_counter() - start

        print(f"llama.cpp, {threads} threads")
        for prompt in [PROMPT, SHORT]:
            start, read, written = time.perf_counter(), float("inf"), float("inf")
            while read == float("inf") or time.perf_counter() - start < SECONDS:
                llama.llama_memory_clear(llama.llama_get_memory(context), True)
                read = min(read, seconds([3 + i * 7919 % 4000 for i in range(prompt)]))
                written = min(written, *(seconds([3 + i * 104729 % 4000]) for i in range(WRITTEN)))
            if prompt == PROMPT:
                print(f"  reads {prompt} tokens: {prompt / read:8.0f} tokens/s")
            print(f"  writes after {prompt:3}:   {1 / written:8.0f} tokens/s")
        llama.llama_free(context)


def best(path):
    """The best figure of all rounds, by threads and what was timed."""
    figures, threads = {}, None
    for line in open(path, encoding="utf-8"):
        if found := re.match(r"(?:cpu|llama\.cpp), (\d+) threads", line):
            threads = int(found[1])
        elif found := re.match(r"  (reads|writes after) +(\d+)[^:]*: +(\d+) tokens/s", line):
            key = threads, f"{found[1]} {found[2]}"
            figures[key] = max(figures.get(key, 0), int(found[3]))
    return figures


def compare(ours, theirs):
    """Prints both, and ours over theirs."""
    ours, theirs = best(ours), best(theirs)
    if ours.keys() != theirs.keys():
        sys.exit(f"expected the same figures of both, found {sorted(ours)} and {sorted(theirs)}")
    print(f"{'threads':>7}  {'tokens':16} {'sixpack':>9} {'llama.cpp':>9} {'ratio':>6}")
    for (threads, what), figure in sorted(ours.items()):
        other = theirs[threads, what]
        print(f"{threads:7}  {what:16} {figure:9} {other:9} {figure / other:6.2f}")


if __name__ == "__main__":
    {"make": make, "time": time_it, "compare": compare}[sys.argv[1]](*sys.argv[2:])
