"""How much memory a model takes in training and generation, from its config.json alone.

Weights P: embeddings V*h (twice where input and output are not tied); per layer attention
h*(q + 2*kv) + q*h and three projections 3*h*i (of each expert, where there are several); norms and
biases are left out. q = heads*head_dim, kv = key-value heads*head_dim.

Trainer, in bytes: 4*P for float32 weights, 4*T for gradients and 8*T for AdamW's two moments, where
T = P, or with LoRA of rank r the adapter: r times the sum of both sides of each projection; with
`learn.kl_every` or a KL weight a copy of the start (4*P, 2*P in bfloat16 without a KL weight; none
with LoRA); logits and their gradient 8*V per token of a micro-batch; activations 34*h*L bytes per
token (2*h*L with gradient checkpointing), twice that in float32.

Engine: B*P for its own weights (B = 4 or 2 by `policy.dtype`; none with engine "transformers",
which uses the trainer's) and 2*L*kv*B of cache per token of all answers that are generated at once.

Not covered: fragmentation, what Python, torch and CUDA take themselves (some 0.5 to 1.5 GiB), other
architectures than decoders of this
shape. A rough figure: it was never compared with the use of a GPU.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from node.config import NodeConfig

MAX_CONFIG_BYTES = 2**20


class ModelShape(msgspec.Struct, frozen=True):
    """Of a model's config.json what its memory depends on."""

    hidden_size: int
    num_hidden_layers: int
    vocab_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool = False
    num_experts: int | None = None
    num_local_experts: int | None = None
    moe_intermediate_size: int | None = None
    max_position_embeddings: int | None = None

    @property
    def q_size(self) -> int:
        """Of all heads together."""
        return self.num_attention_heads * (
            self.head_dim or self.hidden_size // self.num_attention_heads
        )

    @property
    def kv_size(self) -> int:
        """Of all key-value heads together."""
        heads = self.num_key_value_heads or self.num_attention_heads
        return heads * (self.head_dim or self.hidden_size // self.num_attention_heads)

    @property
    def projections(self) -> list[tuple[int, int]]:
        """The sides of each matrix of a layer."""
        h = self.hidden_size
        experts = self.num_experts or self.num_local_experts or 1
        inner = (
            self.intermediate_size
            if experts == 1
            else (self.moe_intermediate_size or self.intermediate_size)
        )
        attention = [(h, self.q_size), (h, self.kv_size), (h, self.kv_size), (self.q_size, h)]
        return attention + [(h, inner)] * 3 * experts

    @property
    def num_weights(self) -> int:
        """P."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * sum(a * b for a, b in self.projections)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes."""

    num_weights: int
    trainer: int
    engine_weights: int
    cache: int
    """Of all answers of a round at once; vLLM makes do with less, more slowly."""
    least_cache: int
    """Of one answer."""

    @property
    def total(self) -> int:
        """Of both."""
        return self.trainer + self.engine_weights + self.cache


def read_shape(file: Path) -> ModelShape:
    """What a config.json says.

    Raises:
        ValueError: it cannot be read, or is not of a decoder of this shape.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise ValueError(f"{file}: more than {MAX_CONFIG_BYTES} bytes")
        shape = msgspec.json.decode(data, type=ModelShape)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ValueError(f"{file}: not of a model whose memory is known: {error}") from None
    sizes = (shape.hidden_size, shape.num_hidden_layers, shape.vocab_size)
    if min(*sizes, shape.intermediate_size, shape.num_attention_heads) < 1 or max(sizes) > 2**31:
        raise ValueError(f"{file}: a size is out of range")
    return shape


def estimate(shape: ModelShape, config: NodeConfig, max_new_tokens: int) -> MemoryEstimate:
    """See the top of this file.

    Args:
        max_new_tokens: of an answer, as the swarm's rules or the settings have it.
    """
    learn, rollout = config.learn, config.rollout
    is_narrow = config.policy.dtype == "bfloat16"
    width = 2 if is_narrow else 4
    weights, layers = shape.num_weights, shape.num_hidden_layers
    tokens_of_one = rollout.max_prompt_tokens + max_new_tokens
    if shape.max_position_embeddings:
        tokens_of_one = min(tokens_of_one, shape.max_position_embeddings)
    trainer = 4 * weights
    if config.mode == "train":
        trained = weights
        if learn.lora_rank:
            trained = layers * learn.lora_rank * sum(a + b for a, b in shape.projections)
            trainer += 4 * trained
        trainer += 12 * trained
        if (learn.kl_every or learn.kl_weight) and not learn.lora_rank:
            trainer += (2 if is_narrow and not learn.kl_weight else 4) * weights
        tokens = learn.micro_batch_answers * tokens_of_one
        per_layer = (2 if learn.gradient_checkpointing else 34) * (1 if is_narrow else 2)
        trainer += tokens * (8 * shape.vocab_size + per_layer * shape.hidden_size * layers)
    per_token = 2 * layers * shape.kv_size * width
    return MemoryEstimate(
        weights,
        trainer,
        0 if rollout.engine == "transformers" else width * weights,
        per_token * tokens_of_one * rollout.questions * rollout.answers,
        per_token * tokens_of_one,
    )
