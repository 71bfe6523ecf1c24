"""Writes small checkpoints as Hugging Face stores them, of random weights: whole, and damaged ones."""
import array
import json
import os
import random
import struct

SMALL = {
    "model_type": "llama", "hidden_size": 60, "num_hidden_layers": 3, "num_attention_heads": 5, "num_key_value_heads": 1,
    "head_dim": 12, "intermediate_size": 77, "vocab_size": 91, "max_position_embeddings": 256, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "tie_word_embeddings": False,
}
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}
EXPERTS = {"model_type": "mixtral", "num_local_experts": 6, "num_experts_per_tok": 3, "rope_theta": 1e6}


def shapes(config):
    """Name and shape of each tensor."""
    hidden, ffn, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    out = {"model.embed_tokens.weight": [vocabulary, hidden], "model.norm.weight": [hidden]}
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = [vocabulary, hidden]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        out[at + "input_layernorm.weight"] = [hidden]
        out[at + "post_attention_layernorm.weight"] = [hidden]
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            out[f"{at}self_attn.{name}_proj.weight"] = [rows, hidden]
        out[at + "self_attn.o_proj.weight"] = [hidden, queries]
        if "num_local_experts" not in config:
            for name in ("gate", "up"):
                out[f"{at}mlp.{name}_proj.weight"] = [ffn, hidden]
            out[at + "mlp.down_proj.weight"] = [hidden, ffn]
            continue
        out[at + "block_sparse_moe.gate.weight"] = [config["num_local_experts"], hidden]
        for expert in range(config["num_local_experts"]):
            for name in ("w1", "w3"):
                out[f"{at}block_sparse_moe.experts.{expert}.{name}.weight"] = [ffn, hidden]
            out[f"{at}block_sparse_moe.experts.{expert}.w2.weight"] = [hidden, ffn]
    return out


def random_tensors(config, seed):
    """Name to (type, shape, bytes): numbers that keep activations near 1, F32."""
    source = random.Random(seed)
    out = {}
    for name, shape in shapes(config).items():
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        low, high = (0.5, 1.5) if len(shape) == 1 else (-2 / shape[1] ** 0.5, 2 / shape[1] ** 0.5)
        numbers = array.array("f", (source.uniform(low, high) for _ in range(count)))
        out[name] = ("F32", shape, numbers.tobytes())
    return out


def tensor_file(tensors, edit=None):
    """A safetensors file; `edit` may change its header."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (kind, shape, content) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    if edit:
        edit(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def write(folder, config, tensors, edit=None):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(tensor_file(tensors, edit))


def with_number(tensors, name, index, number):
    """The same tensors, one number changed."""
    kind, shape, content = tensors[name]
    return {**tensors, name: (kind, shape, content[:4 * index] + struct.pack("<f", number) + content[4 * index + 4:])}


def without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


def write_damaged(folder):
    """Folders of checkpoints that are refused, by what is wrong with them."""
    plain = random_tensors(SMALL, 5)
    down = "model.layers.1.mlp.down_proj.weight"
    out = {}

    def damaged(what, tensors=None, edit=None, config=None):
        out[what] = os.path.join(folder, what.replace(" ", "_"))
        write(out[what], config or SMALL, plain if tensors is None else tensors, edit)
        return os.path.join(out[what], "model.safetensors")

    with open(damaged("header longer than the file"), "r+b") as file:
        file.write(struct.pack("<Q", 1 << 30))
    with open(damaged("length of 2^63"), "r+b") as file:
        file.write(struct.pack("<Q", 1 << 63))
    damaged("offsets out of range", edit=lambda header: header[down]["data_offsets"].__setitem__(1, 1 << 40))
    damaged("overlapping", edit=lambda header: header[down].update(data_offsets=header["lm_head.weight"]["data_offsets"]))
    damaged("wrong type", {**plain, down: ("F8_E4M3", [60, 77], bytes(60 * 77))})
    damaged("wrong shape", {**plain, down: ("F32", [77, 60], plain[down][2])})
    damaged("missing tensor", without(plain, down))
    damaged("absent head", without(plain, "lm_head.weight"))
    damaged("not a number", with_number(plain, down, 77 * 59 + 3, float("nan")))
    damaged("infinite", with_number(plain, "model.embed_tokens.weight", 60 * 44, float("-inf")))
    damaged("tied head of other weights", config={**SMALL, "tie_word_embeddings": True})
    with open(damaged("pointer instead of weights"), "wb") as file:
        file.write(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    os.remove(damaged("missing shard"))
    with open(os.path.join(out["missing shard"], "model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump({"weight_map": {name: "gone.safetensors" for name in plain}}, file)
    return out
