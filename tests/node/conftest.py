"""Tiny random models, written once per test run; the command line; a false node to be asked."""

import io
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from node import cli
from node.access import ADDRESS_FILE, open_token
from node.generate_vllm import VllmGenerator

EOS = 1
PAD = 0
VOCABULARY = 304


def write_random_model(directory: Path, *, tied: bool, head_size: int = 32) -> Path:
    """A random Qwen2 model in fp32 whose answers often end within some 16 tokens."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=2 * head_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=96,
        max_position_embeddings=160,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
        initializer_range=0.15,
    )
    Qwen2ForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """`write_random_model`: files of tests cannot import each other."""
    return write_random_model


@pytest.fixture(scope="session")
def tied_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("tied"), tied=True)


@pytest.fixture(scope="session")
def untied_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("untied"), tied=False)


class VllmEngine:
    """The one vLLM engine that runs in this process; another is started where it must differ."""

    def __init__(self) -> None:
        self.generator: VllmGenerator | None = None
        self.wanted: tuple[Path, str] | None = None

    def __call__(self, model_dir: Path, dtype: str = "float32") -> VllmGenerator:
        if self.generator is None or self.wanted != (model_dir, dtype):
            self.close()
            self.generator = VllmGenerator(
                model_dir, eos_token_ids=[EOS], dtype=dtype, max_len=128, kv_cache_gib=0.05
            )
            self.wanted = model_dir, dtype
        return self.generator

    def close(self) -> None:
        if self.generator is not None:
            self.generator.close()
        self.generator = None


@pytest.fixture(scope="module")
def vllm_engine() -> Iterator[VllmEngine]:
    engine = VllmEngine()
    yield engine
    engine.close()


@pytest.fixture
def sapo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, str, str]]:
    """The command in an empty directory -> exit status, stdout, stderr. `answer` is typed in."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, answer: str = "") -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["sapo", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


@contextmanager
def _fake_node(
    home: Path, answers: Mapping[str, tuple[int, object]]
) -> Iterator[list[tuple[str, object]]]:
    asked: list[tuple[str, object]] = []
    home.mkdir(exist_ok=True)
    token = open_token(home)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: object) -> None:
            assert self.headers["Authorization"] == f"Bearer {token}"
            asked.append((self.path, body))
            status, found = answers.get(self.path, (404, {"detail": "no such peer"}))
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        (home / ADDRESS_FILE).write_text(f"http://127.0.0.1:{server.server_port}\n")
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()
            (home / ADDRESS_FILE).unlink()


@pytest.fixture
def fake_node() -> Callable[..., object]:
    """`with fake_node(home, {path: (status, JSON or bytes)}) as asked`: asked fills with (path,
    body)."""
    return _fake_node
