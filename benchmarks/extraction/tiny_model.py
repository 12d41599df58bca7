"""A llama model of a few random numbers, and llama.cpp's own server around it: a real engine that holds its answers to a grammar.

``python tiny_model.py --port-file PATH`` writes the model with the ``gguf`` package, serves it with ``xllamacpp`` on the loopback
interface, and ends when its standard input closes. It knows no word of anything: whatever a grammar lets through is as good as anything
else to it, which is the hardest customer that a reader of structured answers can have. It needs nothing of llmkit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

LAYERS, WIDTH, HEADS, INNER = 2, 64, 4, 128
CONTEXT = 8_192
SLOTS = 4

#: Letters that come more often than by chance, so that texts and lists come to an end.
_OFTEN = {'"': 12.5, "}": 6.0, "]": 8.0, ",": 2.0, " ": -2.0, "\n": -6.0, "\t": -6.0}

_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant: "


def write(path: Path, seed: int = 1) -> None:
    """The model as a GGUF file: byte tokens, and weights that were drawn."""
    import gguf
    import numpy as np

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *(chr(byte) for byte in range(0x20, 0x7F))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * (len(tokens) - 259)

    made = gguf.GGUFWriter(path, "llama")
    made.add_name("tiny")
    made.add_context_length(CONTEXT)
    made.add_embedding_length(WIDTH)
    made.add_block_count(LAYERS)
    made.add_feed_forward_length(INNER)
    made.add_head_count(HEADS)
    made.add_head_count_kv(HEADS)
    made.add_layer_norm_rms_eps(1e-5)
    made.add_rope_dimension_count(WIDTH // HEADS)
    made.add_vocab_size(len(tokens))
    made.add_file_type(gguf.LlamaFileType.ALL_F32)
    made.add_tokenizer_model("llama")
    made.add_token_list(tokens)
    made.add_token_scores([0.0] * len(tokens))
    made.add_token_types(kinds)
    made.add_bos_token_id(1)
    made.add_eos_token_id(2)
    made.add_unk_token_id(0)
    made.add_add_bos_token(True)
    made.add_add_space_prefix(False)
    made.add_chat_template(_TEMPLATE)

    draw = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (draw.standard_normal(shape) * 0.3 / np.sqrt(shape[-1])).astype(np.float32)

    embedding, output = weights(len(tokens), WIDTH), weights(len(tokens), WIDTH) * 30
    # One number is the same after every token, so that the last layer can prefer some letters whatever was said.
    embedding[:, 0] = 4.0
    output[:, 0] = 0.0
    output[3:259, 0] = -2.0  # bytes that are no letters make no text that is any
    for letter, more in _OFTEN.items():
        output[tokens.index(letter) if letter in tokens else 3 + ord(letter), 0] = more / np.sqrt(WIDTH)
    made.add_tensor("token_embd.weight", embedding)
    made.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    made.add_tensor("output.weight", output)
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            made.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            made.add_tensor(f"blk.{layer}.{name}.weight", weights(WIDTH, WIDTH))
        made.add_tensor(f"blk.{layer}.ffn_gate.weight", weights(INNER, WIDTH))
        made.add_tensor(f"blk.{layer}.ffn_up.weight", weights(INNER, WIDTH))
        made.add_tensor(f"blk.{layer}.ffn_down.weight", weights(WIDTH, INNER))
    made.write_header_to_file()
    made.write_kv_data_to_file()
    made.write_tensors_to_file()
    made.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port-file", type=Path, required=True, help="the address is written here once the server listens")
    given = parser.parse_args()

    import xllamacpp

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gguf"
        write(path)
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = CONTEXT
        parameters.n_parallel = SLOTS
        parameters.hostnames = ["127.0.0.1"]
        parameters.port = 0
        parameters.warmup = False
        parameters.verbosity = 0
        parameters.use_jinja = True
        parameters.cpuparams.n_threads = 1
        server = xllamacpp.Server(parameters)
        unfinished = given.port_file.with_suffix(".tmp")
        unfinished.write_text(server.listening_address)
        unfinished.replace(given.port_file)
        sys.stdin.read()


if __name__ == "__main__":
    main()
