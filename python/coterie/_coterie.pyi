"""
The compiled part of coterie; use `import coterie`.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing
__all__: list[str] = ['Adapter', 'AdapterStore', 'Assistant', 'Expert', 'InteractionLog', 'ReplyStream', 'Router', 'SamplingOptions', 'Tokenizer', 'Trainer', 'default_router_path', 'inspect', 'simulate']
class Expert:
    """
    One model file; coterie.Expert is the public face.
    """
    @staticmethod
    def open(path: str, *, activations: str = 'int8', threads: typing.SupportsInt | typing.SupportsIndex = 0) -> Expert:
        """
        Opens a GGUF file.
        
        activations: 'int8' rounds activations to 8 bits per block of 32 (fast), 'f32' does not (the reference). threads: 0 means one per core.
        """
    def generate(self, prompt_or_messages: typing.Any, max_tokens: typing.SupportsInt | typing.SupportsIndex, sampling: SamplingOptions, stop: collections.abc.Sequence[str], adapter: Adapter | None = None, lookup: bool = True) -> dict[str, typing.Any]:
        """
        Answers; the fields of coterie.expert.ExpertReply.
        """
    def logits(self, ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], adapter: Adapter | None = None) -> numpy.typing.NDArray[numpy.float32]:
        """
        Logits after each token of one sequence, float32 [n_tokens, n_vocab].
        """
    @property
    def description(self) -> dict[str, typing.Any]:
        """
        What the file says of its model: dimensions, vocabulary, context.
        """
    @property
    def tokenizer(self) -> Tokenizer:
        """
        The file's tokenizer.
        """
class Adapter:
    """
    A LoRA adapter bound to a base; coterie.Adapter is the public face.
    """
    @staticmethod
    def open(path: str, *, base: Expert, base_id: str = '', base_name: str = '') -> Adapter:
        """
        Reads a PEFT folder or a GGUF adapter and binds it to a base.
        """
    def merge(self, path: str, *, base: Expert, format: str, type: str) -> None:
        """
        Writes the base with the adapter added to its weights: 'gguf' or 'hf'; type: 'F16', 'BF16' or 'Q8_0'.
        """
    def save(self, path: str, *, format: str) -> None:
        """
        Writes a PEFT folder ('peft') or a GGUF file ('gguf').
        """
    @property
    def description(self) -> dict[str, typing.Any]:
        """
        Name, base, layers, ranks, linear layers, parameters and bytes.
        """
    @property
    def warning(self) -> str:
        """
        What could not be checked; empty if all was.
        """
class AdapterStore:
    """
    Versions of adapters in a model store.
    """
    def __init__(self, home: str) -> None:
        """
        home: the model store.
        """
    def list(self) -> list[dict[str, typing.Any]]:
        """
        Adapters by name, with their versions.
        """
    def load(self, name: str, *, base: Expert, version: typing.SupportsInt | typing.SupportsIndex | None = None) -> Adapter:
        """
        Opens a version for an expert.
        """
    def publish(self, adapter: Adapter, *, name: str, metrics: str = '') -> int:
        """
        Adds a version, makes it current and returns its number.
        """
    def remove(self, name: str, version: typing.SupportsInt | typing.SupportsIndex | None = None) -> None:
        """
        Deletes a version that is not current; None: all of them.
        """
    def rollback(self, name: str, version: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Makes a version current.
        """
    def show(self, name: str, version: typing.SupportsInt | typing.SupportsIndex | None = None) -> dict[str, typing.Any]:
        """
        What is in a version; None: in the current one.
        """
class Tokenizer:
    """
    Text to token ids and back.
    """
    def decode(self, ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> str:
        """
        Text of token ids; bytes that are no UTF-8 become U+FFFD. Raises ValueError for an id outside [0, n_vocab).
        """
    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """
        Token ids of a text. With parse_special, text such as '<|im_end|>' becomes the special token of that name; add_special adds what the model expects at the beginning. Raises ValueError for text that is no Unicode.
        """
    @property
    def n_vocab(self) -> int:
        """
        Number of tokens.
        """
class SamplingOptions:
    """
    How the next token is chosen.
    """
    def __init__(self) -> None:
        """
        The defaults: temperature 0.7, top_k 40, top_p 0.95, min_p 0.05.
        """
    @property
    def min_p(self) -> float:
        """
        Of those at least so likely relative to the likeliest, in [0, 1].
        """
    @min_p.setter
    def min_p(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def n_logprobs(self) -> int:
        """
        How many alternatives to report for each token; -1: nothing.
        """
    @n_logprobs.setter
    def n_logprobs(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def repetition_penalty(self) -> float:
        """
        Divides the logits of recent tokens; 1: none.
        """
    @repetition_penalty.setter
    def repetition_penalty(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def seed(self) -> int | None:
        """
        None: another each time.
        """
    @seed.setter
    def seed(self, arg0: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def temperature(self) -> float:
        """
        0: always the likeliest token.
        """
    @temperature.setter
    def temperature(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def top_k(self) -> int:
        """
        Of the k likeliest; 0: of all.
        """
    @top_k.setter
    def top_k(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def top_p(self) -> float:
        """
        Of the likeliest that reach this probability together, in (0, 1].
        """
    @top_p.setter
    def top_p(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
class Router:
    """
    A classifier of prompts; coterie.Router is the public face.
    """
    @staticmethod
    def fit(rows: collections.abc.Sequence[tuple[str, str]]) -> Router:
        """
        Fits to (text, label) rows.
        """
    @staticmethod
    def load(path: str) -> Router:
        """
        Opens a router file.
        """
    def add_domain(self, name: str, examples: collections.abc.Sequence[str]) -> Router:
        """
        A router that knows one more domain.
        """
    def classify(self, text: str) -> dict[str, typing.Any]:
        """
        The fields of coterie.DomainScores.
        """
    def correct(self, text: str, label: str) -> Router:
        """
        A router that gives this text its label from now on.
        """
    def evaluate(self, rows: collections.abc.Sequence[tuple[str, str]]) -> dict[str, typing.Any]:
        """
        Measures it on (text, label) rows.
        """
    def explain(self, text: str) -> dict[str, typing.Any]:
        """
        The same, with what decided and the nearest examples.
        """
    def save(self, path: str) -> None:
        """
        Writes one file, atomically.
        """
    def with_examples(self, rows: collections.abc.Sequence[tuple[str, str]]) -> Router:
        """
        A router with these (text, label) rows as its examples.
        """
    @property
    def domains(self) -> list[str]:
        """
        The labels.
        """
    @property
    def tier(self) -> str:
        """
        'encoder' or 'lexical'.
        """
    @property
    def version(self) -> str:
        """
        Of the fitted model, and the number of corrections.
        """
class ReplyStream:
    """
    An answer being written; coterie.ReplyStream is the public face.
    """
    def cancel(self) -> None:
        """
        Asks the answer to end; returns at once.
        """
    def next_piece(self) -> str | None:
        """
        The next piece of text, whole characters only; None at the end. Ctrl-C cancels.
        """
    def result(self) -> dict[str, typing.Any]:
        """
        Waits for the end; the fields of coterie.Reply. Raises what ended the answer.
        """
class Assistant:
    """
    Router, experts and their cache; coterie.Assistant is the public face.
    """
    @staticmethod
    def open(config: str | None = None, *, memory_budget: typing.Any = None, threads: typing.SupportsInt | typing.SupportsIndex | None = None, home: str | None = None) -> Assistant:
        """
        Opens a coterie.toml, or the store. memory_budget: bytes or a size as text.
        """
    def events(self) -> list[dict[str, typing.Any]]:
        """
        What happened to memory since the last call, oldest first.
        """
    def experts(self) -> list[dict[str, typing.Any]]:
        """
        The experts in the order of their names.
        """
    def feedback(self, id: str, verdict: str, text: str, domain: str) -> None:
        """
        What the user says of a reply. verdict: "accepted", "rejected", "edited" (text: to what) or "none"; domain: where the prompt belongs, or "".
        """
    def forget(self, id: str) -> None:
        """
        Erases a reply and what was learned from it.
        """
    def problems(self) -> list[str]:
        """
        Models that were left out, and why.
        """
    def reload_adapters(self) -> None:
        """
        Finds the experts that new adapters make.
        """
    def route(self, prompt: str) -> dict[str, typing.Any]:
        """
        Decides only: the fields of coterie.Route.
        """
    def server_configuration(self) -> dict[str, typing.Any]:
        """
        The [server] table of the configuration.
        """
    def set_memory_budget(self, budget: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Changes the budget (bytes).
        """
    def stats(self) -> dict[str, typing.Any]:
        """
        Budget, bytes by purpose, experts and counters.
        """
    def stream(self, prompt: typing.Any, options: dict[str, typing.Any]) -> ReplyStream:
        """
        Starts an answer. options: the keyword arguments of coterie.Assistant.stream.
        """
    def train(self, expert: str, options: dict[str, typing.Any]) -> dict[str, typing.Any]:
        """
        Trains an adapter on feedback: the fields of coterie.TrainingReport. options: those of coterie.TrainingOptions by name.
        """
    def training(self) -> dict[str, typing.Any]:
        """
        How far the training under way, or the last one, has come.
        """
class InteractionLog:
    """
    What was asked and answered; coterie.InteractionLog is the public face.
    """
    @staticmethod
    def open(config: str | None = None, *, home: str | None = None) -> InteractionLog:
        """
        Opens the log of a coterie.toml, or the store's.
        """
    def forget(self, id: str) -> None:
        """
        Erases one. KeyError if there is none.
        """
    def get(self, id: str) -> dict[str, typing.Any]:
        """
        The fields of one. KeyError if there is none.
        """
    def list(self, *, expert: str, with_feedback: bool, newest_first: bool, limit: typing.SupportsInt | typing.SupportsIndex) -> list[dict[str, typing.Any]]:
        """
        The fields of coterie.Interaction. expert: "" for any; limit: 0 for all.
        """
    def used_bytes(self) -> int:
        """
        Bytes of the file that are in use.
        """
    @property
    def encrypted(self) -> bool:
        """
        Whether under a key.
        """
    @property
    def path(self) -> str:
        """
        Where it lies.
        """
class Trainer:
    """
    Trains one adapter step by step; coterie.Trainer is the public face. Thread-compatible.
    """
    def __init__(self, base: Expert, options: dict[str, typing.Any], max_tokens: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def adapter(self, name: str) -> Adapter:
        """
        The adapter as it is now.
        """
    def evaluate(self, sequences: collections.abc.Sequence[tuple[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], collections.abc.Sequence[bool]]], adapted: bool = True) -> list[tuple[float, int]]:
        """
        (summed negative log-likelihood in nats, number of targets) of each pair.
        """
    def gradients(self) -> list[tuple[int, str, numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32]]]:
        """
        Of the last step before clipping: (layer, linear, a [rank, in], b [out, rank]).
        """
    def load(self, adapter: Adapter) -> None:
        """
        Goes on from an adapter.
        """
    def matrices(self) -> list[tuple[int, str, numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32]]]:
        """
        The adapter's own, in the same form.
        """
    def step(self, batch: collections.abc.Sequence[tuple[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], collections.abc.Sequence[bool]]]) -> dict[str, typing.Any]:
        """
        One optimiser step over (token ids, whether each is a target) pairs. Ctrl-C ends it and changes nothing.
        """
    @property
    def is_bf16(self) -> bool:
        """
        Whether products are in bf16, else in f32.
        """
    @property
    def memory_bytes(self) -> int:
        """
        Bytes beside the expert's weights.
        """
def default_router_path() -> str:
    """
    The file of the router that ships, or $COTERIE_ROUTER.
    """
def inspect(path: str) -> dict[str, typing.Any]:
    """
    Describes a GGUF file or a Hugging Face folder: keys, tensors, template, sizes in bytes. Reads the headers.
    """
def simulate(bases: collections.abc.Sequence[tuple[str, typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex]], requests: collections.abc.Sequence[tuple[typing.SupportsFloat | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex]], budget: typing.SupportsInt | typing.SupportsIndex, policy: str) -> dict[str, typing.Any]:
    """
    Runs a trace through the cache on a virtual clock. bases: (name, bytes, load seconds); requests: (arrival seconds, index of the base, KV bytes, hold seconds), in order; budget: bytes; policy: "coterie", "lru" or "belady".
    """
