"""A server that speaks the part of vLLM's API that rollouts use, over a transformers model: one request at a time."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


class FakeVllm:
    """What a `vllm serve` would hold."""

    def __init__(self) -> None:
        self.model: Any = None
        self.room, self.dev_mode, self.heeds_bias, self.loads = 256, True, True, True
        self.seen: list[tuple[str, dict[str, Any]]] = []
        """Paths and bodies of all POST requests, in their order."""

        self.dummy = True
        """It was started without weights, and was not told to take some."""

        self.restarts = 0
        """Times that it is started anew between being told so and taking weights."""

        self.failures = 0
        """Completions that are still to fail."""

        self.lock = threading.Lock()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "served", "max_model_len": self.room}]}
        if path == "/version":
            return 200, {"version": "0.0.fake"}
        if path == "/v1/completions":
            return self._complete(body)
        if not self.dev_mode:
            return 404, {"detail": "Not Found"}
        if path == "/reset_prefix_cache":
            return 200, {"success": True}
        assert path == "/collective_rpc"
        if body["method"] == "update_config":
            self.dummy, self.restarts = self.restarts > 0, max(self.restarts - 1, 0)
        if body["method"] == "reload_weights" and self.dummy:
            return 500, {"error": "Model reloading with `dummy` format"}
        if body["method"] == "reload_weights" and self.loads:
            self.model = AutoModelForCausalLM.from_pretrained(Path(body["kwargs"]["weights_path"]), dtype=torch.float32)
        return 200, {"results": [None]}

    def _complete(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.failures:
            self.failures -= 1
            return 503, {"error": "not yet"}
        prompt = body["prompt"]
        if "prompt_logprobs" in body:
            logprobs = self._logits(prompt).log_softmax(-1)
            told = [{str(t): {"logprob": logprobs[i, t].item()}} for i, t in enumerate(prompt[1:])]
            return 200, {"choices": [{"prompt_logprobs": [None, *told], "token_ids": [0], "finish_reason": "length"}]}
        ids, stopped = self._sample(body)
        reason = "stop" if stopped else "length"
        return 200, {"choices": [{"token_ids": ids, "finish_reason": reason}]}

    def _sample(self, body: dict[str, Any]) -> tuple[list[int], bool]:
        bias = body["logit_bias"] if self.heeds_bias else {}
        randomness = torch.Generator().manual_seed(body["seed"])
        ids: list[int] = []
        while len(ids) < body["max_tokens"]:
            logits = self._logits([*body["prompt"], *ids])[-1]
            for token, value in bias.items():
                logits[int(token)] += value
            if body["temperature"] == 0:
                token = int(logits.argmax())
            else:
                token = int(torch.multinomial((logits / body["temperature"]).softmax(-1), 1, generator=randomness))
            ids.append(token)
            if token in body["stop_token_ids"]:
                return ids, True
        return ids, False

    @torch.no_grad()
    def _logits(self, ids: list[int]) -> Any:
        return self.model(input_ids=torch.tensor([ids])).logits[0]


@contextmanager
def serving(fake: FakeVllm) -> Iterator[str]:
    """The address at which it listens for as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            fake.seen.append((self.path, body))
            self._reply(body)

        def _reply(self, body: dict[str, Any]) -> None:
            with fake.lock:
                status, value = fake.answer(self.path, body)
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            if status == 307:
                self.send_header("Location", value["to"])
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
